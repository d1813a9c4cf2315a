// Package version says which perch this is.
//
//	"0.1.0" + what the Go toolchain stamped --> String --> "0.1.0 (3f2a91c)"
//
// The number is raised by hand with each release; the commit is there when the
// program was built from a checkout.
package version

import "runtime/debug"

// Number is the release, by semver.org.
const Number = "0.1.0"

// String is the release and, where the build recorded it, the commit.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Number
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 {
			return Number + " (" + s.Value[:7] + ")"
		}
	}
	return Number
}
