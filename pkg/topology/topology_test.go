package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, text string, sets ...string) (*Topology, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "box.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path, Settings{Values: sets})
}

const good = `
[node]
name = "box"
store_dir = "data"

[sensor.air]
program = "sensor-bme280"
device = "BME280"
bus = "sim:"
[sensor.air.stream.environment]
capture_hz = 2.0

[worker.air-csv]
program = "csvwriter"
source = "air"
flush = "1hz"

[worker.copy]
program = "csvwriter"
source = ["air.environment"]

[job.sweep]
program = "sweeper"
source = ["air-csv"]
every = "10m"
`

func TestLoad(t *testing.T) {
	top, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := top.Node.StoreDir, filepath.Join(filepath.Dir(top.Path), "data"); got != want {
		t.Errorf("StoreDir = %q; want %q, beside the topology", got, want)
	}
	if got := top.Readers("air"); !cmp.Equal(got, []string{"air-csv", "copy"}) {
		t.Errorf("Readers(air) = %v; want air-csv and copy", got)
	}
	var order []string
	for _, e := range top.StartOrder() {
		order = append(order, e.Name)
	}
	if !cmp.Equal(order, []string{"air-csv", "copy", "air"}) {
		t.Errorf("StartOrder() = %v; want readers before their source, no job", order)
	}
	if e := top.Entry("sweep"); e.Schedule() != "every 10m" || e.Timeout.D() != time.Hour {
		t.Errorf("sweep runs %s, for %v at most; want every 10m, 1h", e.Schedule(), e.Timeout)
	}
}

// A store is written to on its mount only, so it must lie there.
func TestStoreMount(t *testing.T) {
	for _, tt := range []struct{ dir, mount, want string }{
		{"/mnt/usb/perch", "/mnt/usb", ""},
		{"/mnt/usb", "/mnt/usb/", ""},
		{"/mnt/usbstick", "/mnt/usb", "store_dir /mnt/usbstick is not below it: want one such as /mnt/usb/perch"},
		{"/mnt/usb/../sd", "/mnt/usb", "store_dir /mnt/usb/../sd is not below it: want one such as /mnt/usb/perch"},
		{"/var/lib/perch", "mnt/usb", "want an absolute path"},
	} {
		_, err := load(t, strings.Replace(good, `"data"`, fmt.Sprintf("%q\nstore_mount = %q", tt.dir, tt.mount), 1))
		want := fmt.Sprintf("box.toml:5: node.store_mount = %q: %s", tt.mount, tt.want)
		if got := fmt.Sprint(err); (tt.want == "") != (err == nil) || err != nil && !strings.HasSuffix(got, want) {
			t.Errorf("Load() with store_dir %s and store_mount %s = %v; want %s", tt.dir, tt.mount, err, want)
		}
	}
}

func TestMountOf(t *testing.T) {
	n := Node{StoreMount: "/mnt/usb"}
	for dir, want := range map[string]string{"/mnt/usb/csv": "/mnt/usb", "/mnt/usb": "/mnt/usb", "/mnt/usb2": "", "/mnt": "", "csv": ""} {
		if got := n.MountOf(dir); got != want {
			t.Errorf("MountOf(%s) = %q; want %q", dir, got, want)
		}
	}
	if got := (&Node{}).MountOf("/mnt/usb"); got != "" {
		t.Errorf("MountOf() without store_mount = %q; want none", got)
	}
}

type writerConfig struct {
	Flush   string   `toml:"flush" doc:"when"`
	Columns []string `toml:"columns" doc:"which"`
	Every   Duration `toml:"every" doc:"how often"`
	Size    int      `toml:"size" doc:"how many"`

	Disk map[string]diskConfig `toml:"disk" doc:"where"`
}

type diskConfig struct {
	MinFree int `toml:"min_free" doc:"how much"`
}

func (c *writerConfig) Validate() error {
	if c.Flush != "1hz" && c.Flush != "instant" {
		return Bad("flush", "want 1hz or instant")
	}
	return nil
}

func TestEveryProblemAtOnce(t *testing.T) {
	_, err := load(t, `
[nod]
[sensor.air]
program = "sensor-bme280"
source = "x"
[worker.a]
program = "csvwriter"
source = "iar"
[worker.b]
program = 7
source = "c"
[worker.c]
source = "b"
[worker.air]
program = "csvwriter"
source = "air"
[worker.Bad_Name]
program = "csvwriter"
`)
	want := []string{
		`:2: nod: unknown table; did you mean "node"?`,
		`:5: sensor.air.source = "x": a sensor has no source; what reads one is a [worker.air]`,
		`:6: worker.air: the name`,
		`:8: worker.a.source = "iar": there is no "iar" in this topology; did you mean "air"?`,
		`:10: worker.b.program = 7: want a string in quotes`,
		`:11: worker.b.source = "c": a circle: b reads c reads b`,
		`:12: worker.c: no program`,
		`:14: worker.air: the name "air" is taken by [sensor.air] on line 3`,
		`:17: worker.Bad_Name: no source`,
		`:17: worker.Bad_Name: name "Bad_Name": want 1 to 32`,
	}
	text := err.Error()
	for i, w := range want {
		if i == 2 {
			continue
		}
		if !strings.Contains(text, w) {
			t.Errorf("Load() does not say %q; it says\n%s", w, text)
		}
	}
	if got := len(ProblemsOf(err)); got != len(want)-1 {
		t.Errorf("Load() found %d problems; want %d:\n%s", got, len(want)-1, text)
	}
}

func TestBindOwn(t *testing.T) {
	top, err := load(t, good)
	if err != nil {
		t.Fatal(err)
	}
	cfg := writerConfig{Every: Duration(time.Second)}
	if err := top.Entry("air-csv").BindOwn(&cfg); err != nil {
		t.Fatal(err)
	}
	if want := (writerConfig{Flush: "1hz", Every: Duration(time.Second)}); !cmp.Equal(cfg, want) {
		t.Errorf("BindOwn = %+v; want %+v", cfg, want)
	}
}

func TestBindOwnRefuses(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`flsh = "1hz"`, `:5: worker.w.flsh = "1hz": unknown key; did you mean "flush"?`},
		{`min_free = 4`, `:5: worker.w.min_free = 4: unknown key; it belongs below, in [worker.w.disk.NAME]`},
		{`flush = "later"`, `:5: worker.w.flush = "later": want 1hz or instant`},
		{`columns = "a"`, `:5: worker.w.columns = "a": want a list [ ] of string in quotes`},
		{`every = "soon"`, `:5: worker.w.every = "soon": want a length of time such as "10s", "250ms", "1h30m" or "30d"`},
		{`every = 4`, `:5: worker.w.every = 4: want a length of time such as "10s", "250ms", "1h30m" or "30d"`},
		{`size = "4"`, `:5: worker.w.size = "4": want a whole number`},
		{`size = 4.5`, `:5: worker.w.size = 4.5: want a whole number`},
	} {
		top, err := load(t, "[sensor.s]\nprogram=\"s\"\n[worker.w]\nprogram = \"p\"\n"+c.line+"\nsource = \"s\"\n")
		if err != nil {
			t.Fatal(err)
		}
		err = top.Entry("w").BindOwn(&writerConfig{Flush: "1hz"})
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("BindOwn(%s) = %v; want …%s", c.line, err, c.want)
		}
	}
}

func TestSettingsComeOnTop(t *testing.T) {
	top, err := load(t, good, "worker.air-csv.flush=instant", "node.name=other", "sensor.air.stream.environment.capture_hz=5")
	if err != nil {
		t.Fatal(err)
	}
	cfg := writerConfig{}
	if err := top.Entry("air-csv").BindOwn(&cfg); err != nil || cfg.Flush != "instant" || top.Node.Name != "other" {
		t.Errorf("flush = %q, node = %q, %v; want instant, other", cfg.Flush, top.Node.Name, err)
	}
	sensor := struct {
		Bus    string `toml:"bus"`
		Stream map[string]struct {
			Hz float64 `toml:"capture_hz"`
		} `toml:"stream"`
	}{}
	if err := top.Entry("air").BindOwn(&sensor); err != nil || sensor.Stream["environment"].Hz != 5 {
		t.Errorf("sensor = %+v, %v; want 5 Hz", sensor, err)
	}
	for _, bad := range []string{"flush", "=x", "a\nb=1"} {
		if _, err := load(t, good, bad); err == nil {
			t.Errorf("Load with --set %q = nil; want an error", bad)
		}
	}
}

func TestExampleCanBeLoaded(t *testing.T) {
	text := Example(Worker, "w", "p", &writerConfig{Flush: "1hz", Every: Duration(time.Second)})
	top, err := load(t, "[sensor.s]\nprogram=\"s\"\n"+strings.ReplaceAll(text, "NAME", "s"))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	cfg := writerConfig{}
	if err := top.Entry("w").BindOwn(&cfg); err != nil || cfg.Every.D() != time.Second {
		t.Errorf("example binds to %+v, %v:\n%s", cfg, err, text)
	}
}

// Whatever stands in a file, Load answers with a topology or with problems.
func FuzzLoad(f *testing.F) {
	f.Add(good)
	f.Add("[[worker]]\n[sensor]\nx=1")
	f.Add("[job.j]\nprogram = \"p\"\nsource = \"s\"\ncron = \"TZ=\"\n[sensor.s]\nprogram = \"s\"")
	f.Add("worker = 3\nnode = []\nsensor.a.stream = 1")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(t.TempDir(), "f.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		top, err := Load(path, Settings{})
		if err != nil {
			if len(ProblemsOf(err)) == 0 || !strings.Contains(err.Error(), path) {
				t.Errorf("Load() = %v; want problems that name the file", err)
			}
			return
		}
		for _, e := range top.Entries {
			_ = e.BindOwn(&writerConfig{})
		}
	})
}

func TestProblemsShowNoPassword(t *testing.T) {
	const address = "rtsp://me:se/cr@et@camera/live"
	fleet := "[sensor.porch]\nprogram = \"sensor-camera\"\ninput = \"" + address + "\"\n"
	for _, sets := range [][]string{nil, {"sensor.porch.input=" + address}} {
		top, err := load(t, fleet, sets...)
		if err != nil {
			t.Fatal(err)
		}
		got := top.Entry("porch").Table.Problem("input", "no").Error()
		if strings.Contains(got, "cr@et") || !strings.Contains(got, "rtsp://camera/live") {
			t.Errorf("Problem() = %s; want the address without user and password", got)
		}
	}
}

func TestJobsAreHeardByWhoReadsTheirSources(t *testing.T) {
	top, err := load(t, `
[sensor.porch]
program = "sensor-camera"
[sensor.porch.stream.video]
[worker.clips]
program = "h264writer"
source = "porch"
[worker.objects]
program = "detector"
source = "porch.video"
[worker.keep]
program = "mover"
source = ["clips", "objects"]
[worker.send]
program = "uploader"
source = "keep.files"
[worker.clean]
program = "deleter"
source = ["keep", "send", "ipc:///run/else/x.ipc"]
[job.sweep]
program = "sweeper"
source = ["keep", "ipc:///run/else/x.ipc"]
every = "10m"
[job.all]
program = "sweeper"
source = ["clips", "send"]
every = "10m"
[job.look]
program = "looker"
source = "porch"
every = "10m"
`)
	if err != nil {
		t.Fatal(err)
	}
	for job, want := range map[string][]string{
		"sweep": {"clean", "keep", "send"},
		"all":   {"clean", "keep", "send"},
		"look":  nil, // a sensor has nothing to be announced again
		"keep":  nil,
		"none":  nil,
	} {
		if diff := cmp.Diff(want, top.Audience(job)); diff != "" {
			t.Errorf("Audience(%s) (-want +got):\n%s", job, diff)
		}
	}
	for worker, want := range map[string][]string{
		"keep": {"all", "sweep"}, "send": {"all", "sweep"}, "clean": {"all", "sweep"}, "clips": nil, "objects": nil, "porch": nil, "sweep": nil, "none": nil,
	} {
		if diff := cmp.Diff(want, top.HeardJobs(worker)); diff != "" {
			t.Errorf("HeardJobs(%s) (-want +got):\n%s", worker, diff)
		}
	}
}
