package onnx

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	ort "github.com/yalue/onnxruntime_go"
)

// Variable names the environment's variable that says where the library is.
const Variable = "PERCH_ONNXRUNTIME"

const soname = "libonnxruntime.so.1"

// NotFoundError says that there is no library where it was looked for.
type NotFoundError struct{ Tried []string }

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("find ONNX Runtime: tried %s: \"make setup\" provides it; or name the file in %s or in the key library",
		strings.Join(e.Tried, ", "), Variable)
}

// Find returns the library's path: explicit, if that is not empty, or the first
// of the usual ones that is there. Else it fails with a *NotFoundError.
func Find(explicit string) (string, error) {
	tried := []string{explicit}
	if explicit == "" {
		tried = []string{os.Getenv(Variable)}
	}
	if tried[0] == "" {
		tried = usual()
	}
	for _, path := range tried {
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", &NotFoundError{tried}
}

// usual lists where the library may be, best first.
func usual() (paths []string) {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", "lib"), filepath.Dir(exe))
	}
	dirs = append(dirs, "/usr/local/lib/perch", "/usr/lib/perch", "/usr/local/lib", "/usr/lib/"+triplet(), "/usr/lib")
	for _, d := range dirs {
		paths = append(paths, filepath.Join(d, soname))
	}
	return paths
}

// triplet is Debian's name of the machine, as in /usr/lib/aarch64-linux-gnu.
func triplet() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64-linux-gnu"
	case "arm64":
		return "aarch64-linux-gnu"
	default:
		return runtime.GOARCH + "-linux-gnu"
	}
}

// Runtime is the loaded library.
type Runtime struct{ path string }

// Load loads the library at path. It fails when that is no ONNX Runtime, is older
// than 1.24 or made for another machine, and when the process has one loaded.
func Load(path string) (*Runtime, error) {
	if ort.IsInitialized() {
		return nil, errors.New("load ONNX Runtime: this process has it loaded already")
	}
	ort.SetSharedLibraryPath(path)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return nil, fmt.Errorf("load ONNX Runtime from %s: want release 1.24 or later, for %s: %w", path, runtime.GOARCH, err)
	}
	return &Runtime{path}, nil
}

// Version is the library's release and its path.
func (r *Runtime) Version() string { return ort.GetVersion() + " of " + r.path }

// Close unloads the library. Its sessions must have been closed.
func (r *Runtime) Close() error {
	if err := ort.DestroyEnvironment(); err != nil {
		return fmt.Errorf("unload ONNX Runtime: %w", err)
	}
	return nil
}
