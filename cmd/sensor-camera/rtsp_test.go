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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpav1"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmjpeg"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpvp8"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpvp9"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/pion/rtp"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/internal/scene"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/pixel"
)

// netcam is a network camera on loopback: as much of RTSP (RFC 2326) as is
// asked for, and RTP on the same connection. It plays its packets to each who asks
// and hangs up then.
type netcam struct {
	t        *testing.T
	listener net.Listener
	users    string // what the Authorization header must say
	media    string // the video in its description
	typ      byte   // its RTP payload type
	done     sync.WaitGroup

	mu      sync.Mutex
	packets []rtpPacket
	stays   bool            // it does not hang up
	sent    []time.Duration // boot time of each picture that was begun, of the last session
}

// rtpPacket is what a packet holds.
type rtpPacket struct {
	payload []byte
	marker  bool
	begins  bool   // a picture
	at      int    // it is sent with that picture of the video; pictures are captured camHz a second
	time    uint32 // RTP time
}

const (
	camFrames, camHz = 50, 25
	camTick          = 90000 / camHz
	h264Media        = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=framerate:25\r\na=control:track1\r\n"
)

func startNetcam(t *testing.T, media string, packets []rtpPacket) *netcam {
	t.Helper()
	n := &netcam{t: t, packets: packets, media: media, typ: 96}
	if strings.Contains(media, "RTP/AVP 26") {
		n.typ = 26
	}
	var err error
	n.listener, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n.done.Go(n.accept)
	t.Cleanup(func() { n.listener.Close(); n.done.Wait() })
	return n
}

var sceneSize = pixel.Size{Width: 160, Height: 128}

// drawn is a file of raw frames of the scene.
func drawn(t *testing.T, size pixel.Size) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "scene.yuv")
	s, err := scene.New(pixel.YUV420, size)
	must(t, err)
	var frames bytes.Buffer
	frame := make([]byte, s.Bytes())
	for i := range uint64(camFrames) {
		must(t, s.Draw(i, frame))
		frames.Write(frame)
	}
	must(t, os.WriteFile(raw, frames.Bytes(), 0o600))
	return raw
}

// encoded is the scene as a camera encodes it: one key frame in ten, each unit
// small enough for one packet.
func encoded(t *testing.T, size pixel.Size, args ...string) []byte {
	t.Helper()
	argv := []string{"-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", size.String(), "-r", "25", "-i", drawn(t, size)}
	return tool(t, "ffmpeg", slices.Concat(argv, args, []string{"-"})...)
}

func x264(params string) []string {
	return []string{"-c:v", "libx264", "-preset", "ultrafast", "-x264-params", "slices=1:sliced-threads=0:scenecut=0:keyint=10:min-keyint=10:" + params,
		"-crf", "20", "-f", "h264"}
}

const noDelay = "bframes=0:sync-lookahead=0:rc-lookahead=0"

// h264 is the scene without B-frames, one packet a NAL unit.
func h264(t *testing.T) []rtpPacket {
	t.Helper()
	return packetsOf(encoded(t, sceneSize, x264(noDelay)...), func(i int) uint32 { return uint32(i) * camTick })
}

// packetsOf makes one packet of each NAL unit; at is the RTP time of the nth picture.
func packetsOf(stream []byte, at func(n int) uint32) (packets []rtpPacket) {
	n := 0
	for _, unit := range bytes.Split(stream, []byte{0, 0, 1})[1:] { // annex B of H.264
		unit = bytes.TrimRight(unit, "\x00")
		picture := unit[0]&0x1f == 1 || unit[0]&0x1f == 5
		packets = append(packets, rtpPacket{payload: unit, marker: picture, begins: picture, at: n, time: at(n)})
		if picture {
			n++
		}
	}
	return packets
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
		if method != "OPTIONS" && n.users != "" && head["Authorization"] != n.users {
			method, reply = "", strings.Replace(reply, "200 OK", "401 Unauthorized", 1)+"WWW-Authenticate: Basic realm=\"cam\"\r\n"
		}
		body := ""
		switch method {
		case "OPTIONS":
			reply += "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
		case "DESCRIBE":
			body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n" + n.media
			reply += fmt.Sprintf("Content-Type: application/sdp\r\nContent-Length: %d\r\n", len(body))
		case "SETUP":
			reply += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
		}
		if _, err := io.WriteString(conn, reply+"\r\n"+body); err != nil {
			return
		}
		if method == "PLAY" {
			n.play(conn)
			if n.stays {
				_, _ = io.Copy(io.Discard, in) // until the other side goes away
			}
			return
		}
	}
}

// play sends each packet (RFC 3550) in one frame of RTSP's own (RFC 2326,
// 10.12), when its picture is due. Pictures before 0 are sent at once.
func (n *netcam) play(conn net.Conn) {
	begun := time.Now()
	n.mu.Lock()
	packets := n.packets
	n.sent = nil
	n.mu.Unlock()
	for seq, p := range packets {
		time.Sleep(time.Until(begun.Add(time.Duration(p.at) * time.Second / camHz)))
		head := []byte{'$', 0, 0, 0, 0x80, n.typ, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}
		binary.BigEndian.PutUint16(head[2:], uint16(12+len(p.payload)))
		if p.marker {
			head[5] |= 0x80
		}
		binary.BigEndian.PutUint16(head[6:], uint16(seq))
		binary.BigEndian.PutUint32(head[8:], p.time)
		if p.begins {
			n.mu.Lock()
			n.sent = append(n.sent, clock.Boot())
			n.mu.Unlock()
		}
		if _, err := conn.Write(append(head, p.payload...)); err != nil {
			return
		}
	}
}

// sentAt is when a picture of the last session was sent.
func (n *netcam) sentAt(i int) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent[i]
}

// rtspBox is a box whose camera is the network camera.
func rtspBox(t *testing.T, cam *netcam, stream string, keys ...string) *box {
	return newBox(t, fmt.Sprintf("input = %q\n%s\n[sensor.porch.stream.video]\n%s", cam.address(""), strings.Join(keys, "\n"), stream))
}

// Each picture that the camera sends is a frame, from the first to the last of
// each connection.
func TestRTSPIsReadAndReconnected(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, h264Media, h264(t))
	cam.users = "Basic " + base64.StdEncoding.EncodeToString([]byte("me:s3cr&t"))
	b := newBox(t, fmt.Sprintf("input = %q\nallow_basic = true\n[sensor.porch.stream.video]\nslots = 60", cam.address("me:s3cr%26t@")))
	r := b.frames()
	p := b.start()
	for i := range 3 * camFrames {
		f := r.next()
		if n := number(t, f); n != uint64(i%camFrames) {
			t.Fatalf("frame %d has the number %d; want %d", f.Seq, n, i%camFrames)
		}
		f.Release()
	}
	if got := r.frames.Totals(); got.Lost+got.Skipped != 0 {
		t.Errorf("Totals() = %+v; want none lost", got)
	}
	s := r.state("restarts", func(s *msg.State) bool { return s.Counters["restarts"] >= 2 })
	if want := "160x128 yuv420 at 25 Hz from rtsp://" + cam.listener.Addr().String() + "/live"; s.Status != want {
		t.Errorf("Status = %q; want %q", s.Status, want)
	}
	if n := s.Counters["missed_frames"] + s.Counters["dropped_frames"]; n != 0 {
		t.Errorf("missed and dropped %d frames; want 0", n)
	}
	p.signal(15)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d after SIGTERM; want 0", code)
	}
	if log := p.output(); strings.Contains(log, "s3cr") || !strings.Contains(log, "starting it again") {
		t.Errorf("log:\n%s\nwant the reconnection in it, and no password", log)
	}
}

// A camera without key frames is reported, once.
func TestRTSPWithoutKeyFrames(t *testing.T) {
	t.Parallel()
	var packets []rtpPacket
	for i := range 14 * camHz / 5 { // 5 a second
		packets = append(packets, rtpPacket{payload: []byte{0x41, 0x9a, 1}, marker: true, begins: true, at: 5 * i, time: uint32(5*i) * camTick})
	}
	cam := startNetcam(t, h264Media, packets)
	cam.stays = true
	b := rtspBox(t, cam, `size = "160x128"`)
	r := b.frames()
	p := b.start()
	r.state("no key frame", func(s *msg.State) bool { return strings.Contains(s.Trouble, "has sent no key frame for more than 10s") })
	time.Sleep(2500 * time.Millisecond) // time for another report
	if log := p.output(); !p.logs("no key frame") || strings.Count(log, "no key frame") != 1 {
		t.Errorf("log:\n%s\nwant one line about key frames", log)
	}
}

// Pictures are dated when they were sent, not when they were decoded, and those
// of the past that come at once are neither lost nor dated as one.
func TestRTSPTimesAreThoseOfTheCapture(t *testing.T) {
	t.Parallel()
	const past = 20
	packets := h264(t)
	for i := range packets {
		packets[i].at = max(0, packets[i].at-past)
	}
	var cam *netcam
	var stamps []time.Duration
	for tries := 1; len(stamps) < camFrames; tries++ {
		cam = startNetcam(t, h264Media, packets)
		cam.stays = true
		if stamps = readAll(t, cam); len(stamps) < camFrames && tries == 5 {
			t.Fatalf("the reader was too slow %d times, at frame %d the last time", tries, len(stamps))
		}
	}
	const interval = time.Second / camHz
	wantGaps(t, stamps)
	// A picture cannot have been captured after it was sent, nor can all have been
	// on their way for a frame's time.
	least := time.Hour
	for i := past + 1; i < camFrames; i++ {
		least = min(least, max(stamps[i]-cam.sentAt(i), cam.sentAt(i)-stamps[i]))
	}
	if least > interval {
		t.Errorf("no frame is dated within %v of when it was sent; the nearest is off by %v", interval, least)
	}
}

// readAll reads a camera's frames by a ring that is smaller than what comes at once, and returns their
// times: fewer where this reader, on a busy machine, was too slow for the ring.
func readAll(t *testing.T, cam *netcam) (stamps []time.Duration) {
	t.Helper()
	r := rtspBox(t, cam, "slots = 16").frames()
	r.b.start()
	for i := range camFrames {
		f := r.next()
		seq, n := uint64(f.Seq), number(t, f)
		stamps = append(stamps, f.Stamp.Boot)
		f.Release()
		if n != seq {
			t.Fatalf("frame %d has the number %d", seq, n)
		}
		if seq != uint64(i) {
			return stamps[:i]
		}
	}
	return stamps
}

func TestRTSPWithBFrames(t *testing.T) {
	t.Parallel()
	// b-adapt 0 makes groups of P B B: shown as 0 1 2 3, sent as 0 3 1 2.
	mp4 := filepath.Join(t.TempDir(), "b.mp4")
	encoded(t, sceneSize, append(x264("bframes=2:b-adapt=0:b-pyramid=0:open-gop=0:ref=1:sync-lookahead=0:rc-lookahead=0"), "-f", "mp4", "-y", mp4, "-f", "null")...)
	stream := tool(t, "ffmpeg", "-v", "error", "-i", mp4, "-c", "copy", "-f", "h264", "-")
	shown := shownAs(t, mp4)
	packets, newest := packetsOf(stream, func(i int) uint32 { return uint32(shown[i]) * camTick }), 0
	for i := range packets { // nothing is sent before it was captured
		newest = max(newest, int(packets[i].time/camTick))
		packets[i].at = newest
	}
	cam := startNetcam(t, h264Media, packets)
	cam.stays = true
	r := rtspBox(t, cam, "slots = 60").frames()
	r.b.start()
	var stamps []time.Duration
	for i := range camFrames - 4 { // the decoder keeps the last ones until the end
		f := r.next()
		if n := number(t, f); n != uint64(i) {
			t.Errorf("frame %d has the number %d; want %d", f.Seq, n, i)
		}
		stamps = append(stamps, f.Stamp.Boot)
		f.Release()
	}
	wantGaps(t, stamps)
}

// wantGaps wants frames dated at camHz. A correction of the clock's offset makes a
// gap up to a twentieth longer, and may make it shorter by any part: on a busy
// machine the first pictures arrive late.
func wantGaps(t *testing.T, stamps []time.Duration) {
	t.Helper()
	const interval = time.Second / camHz
	right := 0
	for i := 1; i < len(stamps); i++ {
		gap := stamps[i] - stamps[i-1]
		if gap <= 0 || gap > interval*107/100 {
			t.Errorf("frame %d is dated %v after the one before; want %v", i, gap, interval)
		}
		if gap > interval*93/100 {
			right++
		}
	}
	if right < len(stamps)*3/4 {
		t.Errorf("%d of %d gaps are right; want nearly all", right, len(stamps)-1)
	}
}

// shownAs is the place in the order of display of each picture of a file.
func shownAs(t *testing.T, mp4 string) []int {
	t.Helper()
	var times []float64
	for _, line := range strings.Fields(string(tool(t, "ffprobe", "-v", "error", "-show_entries", "packet=pts_time", "-of", "csv=p=0", mp4))) {
		var at float64
		_, err := fmt.Sscanf(line, "%g", &at)
		must(t, err)
		times = append(times, at)
	}
	sorted := slices.Sorted(slices.Values(times))
	var order []int
	for _, at := range times {
		order = append(order, slices.Index(sorted, at))
	}
	return order
}

// Of 25 frames a second 5 are chosen, by the video's own time: each fifth.
func TestRTSPAtALowerRate(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, h264Media, h264(t))
	cam.stays = true
	r := rtspBox(t, cam, "size = \"160x128\"\ncapture_hz = 5\nslots = 20").frames()
	r.b.start()
	for i := range uint64(camFrames / 5) {
		f := r.next()
		if n := number(t, f); n != 5*i || f.Hz != 5 {
			t.Errorf("frame %d of %g Hz has the number %d; want %d, at 5 Hz", f.Seq, f.Hz, n, 5*i)
		}
		f.Release()
	}
}

// A camera whose RTP times stand still: its frames are dated by their arrival,
// and capture_hz chooses by that.
func TestRTSPWithTimesThatStandStill(t *testing.T) {
	t.Parallel()
	packets := h264(t)
	for i := range packets {
		packets[i].time = 4711
	}
	cam := startNetcam(t, h264Media, packets)
	cam.stays = true
	b := rtspBox(t, cam, "capture_hz = 5")
	r := b.frames()
	p := b.start()
	var first, last time.Duration
	for i := range 8 {
		f := r.next()
		if last = f.Stamp.Boot; i == 0 {
			first = last
		}
		f.Release()
	}
	if last-first < time.Second || !p.logs("the camera's RTP times stand still") {
		t.Errorf("8 frames in %v; want 5 a second, and a word of the times:\n%s", last-first, p.output())
	}
}

func TestRTSPCameraThatChangesItsSize(t *testing.T) {
	t.Parallel()
	small := h264(t)
	wide := packetsOf(encoded(t, pixel.Size{Width: 256, Height: 128}, x264(noDelay)...), func(i int) uint32 { return uint32(i+camFrames) * camTick })
	double := packetsOf(encoded(t, pixel.Size{Width: 320, Height: 256}, x264(noDelay)...), func(i int) uint32 { return uint32(i+camFrames) * camTick })
	for i := range wide {
		wide[i].at += camFrames
	}
	for i := range double {
		double[i].at += camFrames
	}
	for name, test := range map[string]struct {
		stream string
		then   []rtpPacket
		code   int // 0: it goes on
		want   string
	}{
		"its own size":  {"", wide, 75, "changed the size of its pictures from 160x128 to 256x128: starting anew"},
		"another shape": {`size = "160x128"`, wide, 0, `its pictures are 256x128, and size = \"160x128\" would distort them`},
		"the same":      {`size = "160x128"`, double, 0, "the camera changed the size of its pictures"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cam := startNetcam(t, h264Media, append(slices.Clone(small), test.then...))
			cam.stays = true
			b := rtspBox(t, cam, test.stream+"\nslots = 120")
			r := b.frames()
			p := b.start()
			frames := camFrames
			if name == "the same" {
				frames += camFrames
			}
			for i := range frames {
				f := r.next()
				if f.Width != 160 || i < camFrames && number(t, f) != uint64(i) { // what is scaled holds no number
					t.Fatalf("frame %d of %d wide is not picture %d", f.Seq, f.Width, i)
				}
				f.Release()
			}
			if test.code != 0 {
				if code := p.exit(); code != test.code {
					t.Errorf("exit code %d; want %d", code, test.code)
				}
			} else if name == "another shape" {
				r.state("trouble", func(s *msg.State) bool { return strings.Contains(s.Trouble, "would distort them") })
			}
			if !p.logs(test.want) {
				t.Errorf("log:\n%s\nwant %q", p.output(), test.want)
			}
		})
	}
}

// JPEG pictures are passed on as they are.
func TestRTSPOfJPEG(t *testing.T) {
	t.Parallel()
	stream := encoded(t, sceneSize, "-c:v", "mjpeg", "-huffman", "default", "-q:v", "3", "-pix_fmt", "yuvj420p", "-f", "mjpeg")
	enc := &rtpmjpeg.Encoder{}
	must(t, enc.Init())
	var packets []rtpPacket
	for i, picture := range bytes.SplitAfter(stream, []byte{0xff, 0xd9})[:camFrames] {
		parts, err := enc.Encode(picture)
		must(t, err)
		for j, p := range parts {
			packets = append(packets, rtpPacket{payload: p.Payload, marker: p.Marker, begins: j == 0, at: i, time: uint32(i) * camTick})
		}
	}
	media := "m=video 0 RTP/AVP 26\r\na=control:track1\r\n"
	cam := startNetcam(t, media, packets)
	cam.stays = true
	for _, stream := range []string{"format = \"mjpeg\"", "format = \"mjpeg\"\ncapture_hz = 5", ""} {
		r := rtspBox(t, cam, stream+"\nslots = 60").frames()
		r.b.start()
		step := uint64(1)
		if strings.Contains(stream, "capture_hz") {
			step = 5
		}
		for i := range uint64(5) {
			f := r.next()
			if got := uint64(f.Seq) * step; number(t, f) != got || f.Width != 160 {
				t.Errorf("%q: frame %d has the number %d, %d wide; want %d", stream, i, number(t, f), f.Width, got)
			}
			f.Release()
		}
	}
}

// Cameras with other codecs: each picture is a frame.
func TestRTSPCodecs(t *testing.T) {
	t.Parallel()
	const pictures = "12"
	for name, test := range map[string]struct {
		encoder []string
		media   string
		packets func(t *testing.T, stream []byte) []rtpPacket
	}{
		"h265": {[]string{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "bframes=0:log-level=none:crf=15", "-f", "hevc"}, "H265/90000", func(_ *testing.T, stream []byte) (packets []rtpPacket) {
			n := 0
			for _, unit := range bytes.Split(stream, []byte{0, 0, 1})[1:] {
				unit = bytes.TrimRight(unit, "\x00")
				picture := unit[0]>>1 < 32
				packets = append(packets, rtpPacket{payload: unit, marker: picture, begins: picture, at: n, time: uint32(n) * camTick})
				if picture {
					n++
				}
			}
			return packets
		}},
		"vp8": {[]string{"-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M", "-f", "ivf"}, "VP8/90000", func(t *testing.T, stream []byte) []rtpPacket {
			enc := &rtpvp8.Encoder{PayloadMaxSize: 1200}
			must(t, enc.Init())
			return packed(t, stream, enc.Encode)
		}},
		"vp9": {[]string{"-c:v", "libvpx-vp9", "-deadline", "realtime", "-b:v", "2M", "-f", "ivf"}, "VP9/90000", func(t *testing.T, stream []byte) []rtpPacket {
			enc := &rtpvp9.Encoder{PayloadMaxSize: 1200}
			must(t, enc.Init())
			return packed(t, stream, enc.Encode)
		}},
		"av1": {[]string{"-c:v", "libaom-av1", "-usage", "realtime", "-cpu-used", "8", "-b:v", "2M", "-f", "ivf"}, "AV1/90000", func(t *testing.T, stream []byte) []rtpPacket {
			enc := &rtpav1.Encoder{PayloadMaxSize: 1200}
			must(t, enc.Init())
			return packed(t, stream, func(unit []byte) ([]*rtp.Packet, error) {
				var obus av1.Bitstream
				if err := obus.Unmarshal(unit); err != nil {
					return nil, err
				}
				return enc.Encode(slices.DeleteFunc(obus, func(o []byte) bool { return o[0]>>3&0xf == 2 })) // temporal delimiters
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := encoded(t, sceneSize, append([]string{"-frames:v", pictures}, test.encoder...)...)
			cam := startNetcam(t, "m=video 0 RTP/AVP 96\r\na=rtpmap:96 "+test.media+"\r\na=control:track1\r\n", test.packets(t, stream))
			cam.stays = true
			r := rtspBox(t, cam, "slots = 60").frames()
			r.b.start()
			for i := range 12 {
				f := r.next()
				if n := number(t, f); n != uint64(i) || f.Width != sceneSize.Width {
					t.Errorf("frame %d, %d wide, has the number %d; want %d", f.Seq, f.Width, n, i)
				}
				f.Release()
			}
		})
	}
}

// packed makes packets of the units of an IVF file.
func packed(t *testing.T, ivf []byte, encode func([]byte) ([]*rtp.Packet, error)) (packets []rtpPacket) {
	t.Helper()
	for rest, n := ivf[32:], 0; len(rest) > 12; n++ {
		size := int(binary.LittleEndian.Uint32(rest))
		parts, err := encode(rest[12 : 12+size])
		must(t, err)
		for i, p := range parts {
			packets = append(packets, rtpPacket{payload: p.Payload, marker: p.Marker, begins: i == 0, at: n, time: uint32(n) * camTick})
		}
		rest = rest[12+size:]
	}
	return packets
}

func TestRTSPThatIsNotThere(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, h264Media, nil)
	must(t, cam.listener.Close())
	for _, size := range []string{"", `size = "160x128"`} {
		b := newBox(t, fmt.Sprintf("input = %q\n[sensor.porch.stream.video]\n%s", cam.address("me:s3cr%26t@"), size))
		r := b.frames()
		p := b.start()
		s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
		if want := "connection refused; asking again"; !strings.HasSuffix(s.Trouble, want) || strings.Contains(p.output()+s.Trouble, "s3cr") {
			t.Errorf("Trouble = %q; want %q, and no password", s.Trouble, want)
		}
		p.signal(15)
		if code := p.exit(); code != 0 {
			t.Errorf("exit code %d after SIGTERM; want 0", code)
		}
	}
}

func TestRTSPPasswordIsNotSentInClear(t *testing.T) {
	t.Parallel()
	cam := startNetcam(t, h264Media, nil)
	cam.users = "Basic nobody"
	for keys, want := range map[string]string{"": "set allow_basic = true", "allow_basic = true": "401 Unauthorized: the camera refuses this user and password: correct them in input; asking again"} {
		b := newBox(t, fmt.Sprintf("input = %q\n%s\n[sensor.porch.stream.video]", cam.address("me:wr0ng@"), keys))
		r := b.frames()
		p := b.start()
		s := r.state("trouble", func(s *msg.State) bool { return s.Trouble != "" })
		if !strings.Contains(s.Trouble, want) || strings.Contains(p.output()+s.Trouble, "wr0ng") {
			t.Errorf("Trouble = %q; want %q, and no password", s.Trouble, want)
		}
	}
}
