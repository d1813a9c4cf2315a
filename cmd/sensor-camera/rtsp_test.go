package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// netcam is a network camera on loopback: as much of RTSP (RFC 2326) as ffmpeg
// asks for, and H.264 in RTP (RFC 6184) on the same connection. It plays 50
// frames of the scene at 25 a second and hangs up then.
type netcam struct {
	t        *testing.T
	listener net.Listener
	units    [][]byte // NAL units of the video, in order
	users    string   // what the Authorization header must say
	done     sync.WaitGroup
}

const camFrames, camHz = 50, 25

func startNetcam(t *testing.T, user, password string) *netcam {
	t.Helper()
	n := &netcam{t: t, units: h264(t), users: "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
	var err error
	n.listener, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n.done.Go(n.accept)
	t.Cleanup(func() { n.listener.Close(); n.done.Wait() })
	return n
}

// h264 is the scene as a camera encodes it: one key frame in ten, no B-frames,
// each unit small enough for one packet.
func h264(t *testing.T) (units [][]byte) {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "scene.yuv")
	size := pixel.Size{Width: 160, Height: 128}
	s, err := scene.New(pixel.YUV420, size)
	must(t, err)
	var frames bytes.Buffer
	frame := make([]byte, s.Bytes())
	for i := range uint64(camFrames) {
		must(t, s.Draw(i, frame))
		frames.Write(frame)
	}
	must(t, os.WriteFile(raw, frames.Bytes(), 0o600))
	stream := tool(t, "ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size.String(), "-r", "25", "-i", raw,
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-x264-params", "slices=1:sliced-threads=0", "-g", "10", "-crf", "20", "-f", "h264", "-")
	for _, unit := range bytes.Split(stream, []byte{0, 0, 1})[1:] { // annex B of H.264
		units = append(units, bytes.TrimRight(unit, "\x00"))
	}
	return units
}

func (n *netcam) address(userinfo string) string {
	return "rtsp://" + userinfo + n.listener.Addr().String() + "/live"
}

func (n *netcam) accept() {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			return // closed
		}
		n.done.Go(func() {
			defer conn.Close()
			n.serve(conn)
		})
	}
}

// serve answers requests until it has played, or the other side goes away.
func (n *netcam) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		head := map[string]string{}
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		method, _, _ := strings.Cut(line, " ")
		for {
			line, err = in.ReadString('\n')
			key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if err != nil || !ok {
				break
			}
			head[key] = value
		}
		reply := "RTSP/1.0 200 OK\r\nCSeq: " + head["CSeq"] + "\r\n"
		if method != "OPTIONS" && head["Authorization"] != n.users {
			method, reply = "", strings.Replace(reply, "200 OK", "401 Unauthorized", 1)+"WWW-Authenticate: Basic realm=\"cam\"\r\n"
		}
		body := ""
		switch method {
		case "OPTIONS":
			reply += "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
		case "DESCRIBE":
			body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n" +
				"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framerate:25\r\na=control:track1\r\n"
			reply += fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n", len(body))
		case "SETUP":
			reply += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
		}
		if _, err := io.WriteString(conn, reply+"\r\n"+body); err != nil {
			return
		}
		if method == "PLAY" {
			n.play(conn)
			return
		}
	}
}

// play sends each unit as one packet (RFC 3550) in one frame of RTSP's own
// (RFC 2326, 10.12).
func (n *netcam) play(conn net.Conn) {
	begun, frame := time.Now(), 0
	for seq, unit := range n.units {
		picture := unit[0]&0x1f == 1 || unit[0]&0x1f == 5
		if picture {
			time.Sleep(time.Until(begun.Add(time.Duration(frame) * time.Second / camHz)))
		}
		packet := []byte{'$', 0, 0, 0, 0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}
		binary.BigEndian.PutUint16(packet[2:], uint16(12+len(unit)))
		if picture {
			packet[5] |= 0x80 // the marker: a picture's last packet
		}
		binary.BigEndian.PutUint16(packet[6:], uint16(seq))
		binary.BigEndian.PutUint32(packet[8:], uint32(frame*90000/camHz))
		if picture {
			frame++
		}
		if _, err := conn.Write(append(packet, unit...)); err != nil {
			return
		}
	}
}

func TestRTSPIsReadAndReconnected(t *testing.T) {
	t.Parallel()
	const user, password = "me", "s3cr&t"
	cam := startNetcam(t, user, password)
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 60", cam.address("me:s3cr%26t@")))
	r := b.frames()
	p := b.start()
	// After its connection ffmpeg may leave the first frames out; then each comes.
	for runs, last := 0, uint64(0); runs < 3; {
		f := r.next()
		switch n := number(t, f); {
		case n == last+1:
		case n < last || f.Seq == 0:
			runs++
		default:
			t.Fatalf("frame %d has the number %d after %d; want each in turn", f.Seq, n, last)
		}
		last = number(t, f)
		f.Release()
	}
	s := r.state("restarts", func(s *msg.State) bool { return s.Counters["restarts"] >= 2 })
	if want := "160x128 yuv420 at 25 Hz from rtsp://" + cam.listener.Addr().String() + "/live"; s.Status != want {
		t.Errorf("Status = %q; want %q", s.Status, want)
	}
	p.signal(15)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM; want 0", code)
	}
	if log := p.output(); strings.Contains(log, "s3cr") || !strings.Contains(log, "starting it again") {
		t.Errorf("log:\n%s\nwant the reconnection in it, and no password", log)
	}
}

// Of 25 frames a second 5 are chosen, by the video's own time: each fifth.
func TestRTSPAtALowerRate(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, "me", "s3cr&t")
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\nslots = 60\nsize = \"160x128\"\ncapture_hz = 5", cam.address("me:s3cr%26t@")))
	r := b.frames()
	b.start()
	for run, last := 0, uint64(0); run < 8; run++ { // of 10 in a connection, of which the first may be left out
		f := r.next()
		n := number(t, f)
		if n < last {
			run = 0 // the next connection
		}
		if run > 1 && n != last+5 || f.Hz != 5 {
			t.Errorf("frame %d of %g Hz has the number %d after %d; want each fifth, at 5 Hz", f.Seq, f.Hz, n, last)
		}
		last = n
		f.Release()
	}
}

func TestRTSPThatIsNotThere(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, "me", "s3cr&t")
	must(t, cam.listener.Close())
	for size, want := range map[string]string{
		"":                 "Connection refused; asking again", // is asked for
		`size = "160x128"`: "Connection refused; starting it again",
	} {
		b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\n%s", cam.address("me:s3cr%26t@"), size))
		r := b.frames()
		p := b.start()
		s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
		if !strings.HasSuffix(s.Trouble, want) || strings.Contains(p.output()+s.Trouble, "s3cr") {
			t.Errorf("Trouble = %q; want %q, and no password", s.Trouble, want)
		}
		p.signal(15)
		if code := p.exit(); code != 0 {
			t.Errorf("exit code %d after SIGTERM; want 0", code)
		}
	}
}

func TestRTSPWithTheWrongPassword(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, "me", "s3cr&t")
	b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]", cam.address("me:wr0ng@")))
	r := b.frames()
	p := b.start()
	s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
	if !strings.Contains(s.Trouble, "401 Unauthorized") || strings.Contains(p.output()+s.Trouble, "wr0ng") {
		t.Errorf("Trouble = %q; want 401, and no password", s.Trouble)
	}
}
