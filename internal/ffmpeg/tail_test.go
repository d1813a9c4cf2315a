package ffmpeg

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The last words of a program never show the password of a URL, whatever its
// scheme, and lack the lines that Notice takes.
func TestTail(t *testing.T) {
	var noticed []string
	words := tail{notice: func(line string) bool {
		noticed = append(noticed, line)
		return line == "41943400.000000"
	}}
	for _, line := range []string{"[http @ 0x5] http://me:s3cr@t@camera/video?x=1: Connection refused", "41943400.000000", "mailto://a b@c", "rtmp://camera/live@home"} {
		_, _ = words.Write([]byte(line + "\n")) // it never fails
	}
	want := []string{"[http @ 0x5] http://***@camera/video?x=1: Connection refused", "mailto://a b@c", "rtmp://camera/live@home"}
	if diff := cmp.Diff(want, words.last()); diff != "" {
		t.Errorf("last (-want +got):\n%s", diff)
	}
	if len(noticed) != 4 {
		t.Errorf("Notice was called with %q; want all 4 lines", noticed)
	}
}
