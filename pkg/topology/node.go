package topology

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Node is the table [node]: the box itself.
type Node struct {
	Name             string   `toml:"name" doc:"name of this box, in every record"`
	ResponsibleParty string   `toml:"responsible_party" doc:"who answers for the data, in every sidecar"`
	LogLevel         LogLevel `toml:"log_level" doc:"debug, info, warn or error"`
	RunDir           string   `toml:"run_dir" doc:"sockets and locks; short, since a socket's path has 107 bytes at most"`
	ShmDir           string   `toml:"shm_dir" doc:"rings of frames and messages, in RAM"`
	CacheDir         string   `toml:"cache_dir" doc:"files are born here, in RAM; default: cache in shm_dir"`
	StoreDir         string   `toml:"store_dir" doc:"files that are kept, on disk"`
	StoreMount       string   `toml:"store_mount" doc:"mount point that store_dir must be on, such as /mnt/usb: while it is absent nothing is written there; default: whatever disk store_dir is on"`
	StartGate        Duration `toml:"start_gate" doc:"how long a sensor waits at its start for the workers that read it"`
	Location         Location `toml:"-"` // from keys of the table's own, see locationKeys
}

// nodeKeys are all keys of [node].
type nodeKeys struct {
	Node
	locationKeys
}

// Validate checks both.
func (k *nodeKeys) Validate() error { return errors.Join(k.Node.Validate(), k.locationKeys.Validate()) }

// DefaultNode is a box of the present user: /run/perch and /var/lib/perch for
// root, as a service has them, and folders of the user's own otherwise.
func DefaultNode() Node {
	n := Node{LogLevel: LogLevel(slog.LevelInfo), StartGate: Duration(2 * time.Second)}
	if host, err := os.Hostname(); err == nil {
		n.Name = host
	}
	if os.Geteuid() == 0 {
		n.RunDir, n.ShmDir, n.StoreDir = "/run/perch", "/dev/shm/perch", "/var/lib/perch"
		return n
	}
	n.RunDir = filepath.Join(os.TempDir(), fmt.Sprintf("perch-%d", os.Geteuid()))
	if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
		n.RunDir = filepath.Join(run, "perch")
	}
	n.ShmDir = fmt.Sprintf("/dev/shm/perch-%d", os.Geteuid())
	n.StoreDir = "perch-data"
	if home, err := os.UserHomeDir(); err == nil {
		n.StoreDir = filepath.Join(home, ".local/share/perch")
	}
	return n
}

// Validate checks what the types cannot.
func (n *Node) Validate() error {
	var errs []error
	if n.Name == "" || len(n.Name) > 64 {
		errs = append(errs, Bad("name", "want 1 to 64 bytes"))
	}
	for key, dir := range map[string]string{"run_dir": n.RunDir, "shm_dir": n.ShmDir, "store_dir": n.StoreDir} {
		if dir == "" {
			errs = append(errs, Bad(key, "want a folder"))
		}
	}
	if n.StoreMount != "" && !filepath.IsAbs(n.StoreMount) {
		errs = append(errs, Bad("store_mount", "want an absolute path"))
	}
	return errors.Join(errs...)
}

// resolve makes folders absolute: those of a topology are relative to its own.
func (n *Node) resolve(base string) {
	for _, dir := range []*string{&n.RunDir, &n.ShmDir, &n.CacheDir, &n.StoreDir} {
		if *dir != "" && !filepath.IsAbs(*dir) {
			*dir = filepath.Join(base, *dir)
		}
	}
	if n.CacheDir == "" {
		n.CacheDir = filepath.Join(n.ShmDir, "cache")
	}
}

// MountOf is the mount point that a folder must be on to be written to:
// store_mount for those below it; "" is whatever disk the folder is on.
func (n *Node) MountOf(dir string) string {
	below, err := filepath.Rel(n.StoreMount, dir)
	if n.StoreMount == "" || err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return ""
	}
	return n.StoreMount
}

// strayed says whether the store is somewhere else than its mount.
func (n *Node) strayed() bool {
	return filepath.IsAbs(n.StoreMount) && n.StoreDir != "" && n.MountOf(n.StoreDir) == ""
}

// LogLevel is how much is logged.
type LogLevel slog.Level

func (l LogLevel) String() string {
	switch slog.Level(l) {
	case slog.LevelDebug:
		return "debug"
	case slog.LevelInfo:
		return "info"
	case slog.LevelWarn:
		return "warn"
	default:
		return "error"
	}
}

// UnmarshalText reads one of the four words.
func (l *LogLevel) UnmarshalText(text []byte) error {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if LogLevel(level).String() == string(text) {
			*l = LogLevel(level)
			return nil
		}
	}
	return fmt.Errorf("want debug, info, warn or error")
}
