package rtspcam

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/auth"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/bluenviron/gortsplib/v5/pkg/sdpunmarshaler"
	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"github.com/perch-edge/perch/internal/clock"
	"github.com/perch-edge/perch/pkg/pixel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Parameter sets of 320x240 and of 640x360, as x264 makes them (bt709, full
// range, 10 Hz in the first one), and slices of which only the beginning counts.
var (
	sps320 = []byte{0x67, 0x42, 0xc0, 0x0b, 0xd9, 0x01, 0x41, 0xfb, 0x01, 0x6e, 0x02, 0x02, 0x02, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x0a, 0x07, 0x8a, 0x15, 0x24}
	sps640 = []byte{0x67, 0x42, 0xc0, 0x16, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x14, 0x0f, 0x16, 0x2e, 0x48}
	pps    = []byte{0x68, 0xce, 0x0f, 0xc8}
)

func idr(n byte) []byte   { return []byte{0x65, 0x88, n} }
func slice(n byte) []byte { return []byte{0x41, 0x9a, n} }

// server is a camera on loopback, by gortsplib's own server.
type server struct {
	t      *testing.T
	s      *gortsplib.Server
	desc   *description.Session
	play   func(send func(seq uint16, rtpTime uint32, marker bool, payload []byte)) // for each session; nil plays nothing
	tcp    bool                                                                     // takes TCP
	auth   []auth.VerifyMethod
	status base.StatusCode // of DESCRIBE; 0 is OK

	mu      sync.Mutex
	stream  *gortsplib.ServerStream
	players sync.WaitGroup
	used    []gortsplib.Protocol
}

const user, password = "me", "s3cret"

func h264Media(sps []byte) *description.Media {
	return &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{&format.H264{PayloadTyp: 96, PacketizationMode: 1, SPS: sps, PPS: pps}}}
}

func audioMedia() *description.Media {
	return &description.Media{Type: description.MediaTypeAudio, Formats: []format.Format{&format.G711{PayloadTyp: 8, SampleRate: 8000, ChannelCount: 1}}}
}

func startServer(t *testing.T, c *server) *server {
	t.Helper()
	c.t = t
	if c.desc == nil {
		c.desc = &description.Session{Medias: []*description.Media{audioMedia(), h264Media(sps320)}}
	}
	if c.s == nil {
		c.s = &gortsplib.Server{}
	}
	c.s.Handler, c.s.AuthMethods = c, c.auth
	for try := 0; ; try++ { // UDP wants two ports that follow each other
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		address := tcp.Addr().String()
		must(t, tcp.Close())
		c.s.RTSPAddress = address
		udp := 20000 + 2*(os.Getpid()+try*17)%20000
		c.s.UDPRTPAddress, c.s.UDPRTCPAddress = fmt.Sprintf("127.0.0.1:%d", udp&^1), fmt.Sprintf("127.0.0.1:%d", udp|1)
		if err = c.s.Start(); err == nil {
			break
		}
		if try == 20 {
			t.Fatal(err)
		}
	}
	c.stream = &gortsplib.ServerStream{Server: c.s, Desc: c.desc}
	must(t, c.stream.Initialize())
	t.Cleanup(func() {
		c.s.Close()
		c.players.Wait()
		c.stream.Close()
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *server) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	if c.status != 0 {
		return &base.Response{StatusCode: c.status}, nil, nil
	}
	if c.auth != nil && !ctx.Conn.VerifyCredentials(ctx.Request, user, password) {
		return &base.Response{StatusCode: base.StatusUnauthorized}, nil, liberrors.ErrServerAuth{}
	}
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

func (c *server) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	if !c.tcp && ctx.Transport.Protocol == gortsplib.ProtocolTCP {
		return &base.Response{StatusCode: base.StatusUnsupportedTransport}, nil, nil
	}
	c.mu.Lock()
	c.used = append(c.used, ctx.Transport.Protocol)
	c.mu.Unlock()
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

func (c *server) OnPlay(ctx *gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	media := c.desc.Medias[len(c.desc.Medias)-1]
	if c.play != nil {
		c.players.Go(func() {
			c.play(func(seq uint16, rtpTime uint32, marker bool, payload []byte) {
				_ = c.stream.WritePacketRTP(media, &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: rtpTime, Marker: marker}, Payload: payload})
			})
		})
	}
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (c *server) config(t *testing.T, userinfo string) Config {
	t.Helper()
	scheme := "rtsp://"
	if c.s.TLSConfig != nil {
		scheme = "rtsps://"
	}
	address, err := ParseAddress(scheme + userinfo + c.s.RTSPAddress + "/live")
	must(t, err)
	system, err := clock.System()
	must(t, err)
	return Config{Address: address, Timeout: 10 * time.Second, StallAfter: 10 * time.Second, Now: system.Now,
		Warn: func(kind, text string) { t.Logf("warning %s: %s", kind, text) }}
}

func openSession(t *testing.T, cfg Config) *Session {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func next(t *testing.T, s *Session) Unit {
	t.Helper()
	u, err := s.Next(t.Context(), func() {})
	must(t, err)
	return u
}

// slices10 plays units, ten a second by their RTP times and at once in fact.
func slices10(units ...[][]byte) func(func(uint16, uint32, bool, []byte)) {
	return func(send func(uint16, uint32, bool, []byte)) {
		seq := uint16(0xfff0)
		for i, unit := range units {
			for j, nalu := range unit {
				if nalu != nil {
					send(seq, uint32(i)*9000, j == len(unit)-1, nalu)
				}
				seq++ // nil is a packet that was lost
			}
		}
	}
}

func TestUnitsBeginWithAKeyFrame(t *testing.T) {
	t.Parallel()
	c := startServer(t, &server{tcp: true, play: slices10([][]byte{slice(0)}, [][]byte{slice(1)}, [][]byte{idr(2)}, [][]byte{slice(3)}, [][]byte{sps640, pps, idr(4)})})
	s := openSession(t, c.config(t, ""))
	shape, err := s.Begin(t.Context(), func() {})
	want := Shape{Size: pixel.Size{Width: 320, Height: 240}, Hz: 10, Colour: pixel.Colour{Range: pixel.Full, Matrix: pixel.BT709}, Pixel: [2]int{1, 1}}
	if err != nil || shape != want {
		t.Errorf("Begin() = %+v, %v; want %+v", shape, err, want)
	}
	annexB := func(nalus ...[]byte) (b string) {
		for _, n := range nalus {
			b += "\x00\x00\x00\x01" + string(n)
		}
		return b
	}
	for i, want := range []struct {
		data   string
		missed int
		width  int
	}{{annexB(sps320, pps, idr(2)), 2, 320}, {annexB(slice(3)), 0, 320}, {annexB(sps640, pps, idr(4)), 0, 640}} {
		u := next(t, s)
		if string(u.Data) != want.data || u.Missed != want.missed || u.Shape.Size.Width != want.width || u.Key != (i != 1) {
			t.Errorf("unit %d: %x, missed %d, %+v, key %v; want %x, missed %d, %d wide", i, u.Data, u.Missed, u.Shape, u.Key, want.data, want.missed, want.width)
		}
	}
}

// Ten pictures that are sent at once have the distances of their RTP times, and
// end when they arrived.
func TestUnitsOfABurstHaveTheirTimes(t *testing.T) {
	t.Parallel()
	units := [][][]byte{{idr(0)}}
	for i := range byte(9) {
		units = append(units, [][]byte{slice(i)})
	}
	c := startServer(t, &server{tcp: true, play: slices10(units...)})
	s := openSession(t, c.config(t, ""))
	var times []time.Duration
	for range units {
		times = append(times, next(t, s).Captured)
	}
	for i := 1; i < len(times); i++ { // on a busy machine they do not arrive at once, which makes gaps shorter
		if gap := times[i] - times[i-1]; gap <= 0 || gap > 106*time.Millisecond {
			t.Errorf("picture %d is %v after the one before; want 100ms", i, gap)
		}
	}
	if span := times[9] - times[0]; span < 500*time.Millisecond {
		t.Errorf("the pictures are from %v; want 900ms", span)
	}
	if now := clock.Boot(); times[9] > now {
		t.Errorf("the newest picture is from %v in the future", times[9]-now)
	}
}

func TestLostPacketsAreCounted(t *testing.T) {
	t.Parallel()
	c := startServer(t, &server{tcp: true, play: slices10([][]byte{idr(0)}, [][]byte{slice(1)}, [][]byte{nil}, [][]byte{nil}, [][]byte{slice(4)},
		[][]byte{slice(5), {0x41, 0x2a, 5}}, [][]byte{nil, {0x41, 0x2a, 6}}, [][]byte{slice(7)})})
	s := openSession(t, c.config(t, ""))
	for _, want := range []struct {
		n      byte
		missed int
	}{{0, 0}, {1, 0}, {4, 2}, {5, 0}, {7, 1}} { // of 6 the first slice is lost
		u := next(t, s)
		if got := u.Data[len(u.Data)-1]; got != want.n || u.Missed != want.missed {
			t.Errorf("picture %d, missed %d; want %d, missed %d", got, u.Missed, want.n, want.missed)
		}
	}
}

// Cameras that never set the marker bit, and that set it for each slice.
func TestMarkersThatMeanNothing(t *testing.T) {
	t.Parallel()
	second := func(n byte) []byte { return []byte{0x41, 0x2a, n} } // a slice that is not the first
	for name, marker := range map[string]bool{"never": false, "each slice": true} {
		c := startServer(t, &server{tcp: true})
		c.play = func(send func(uint16, uint32, bool, []byte)) {
			seq := uint16(0)
			for i := range uint32(6) {
				first := slice(byte(i))
				if i == 0 {
					first = idr(0)
				}
				for _, nalu := range [][]byte{first, second(byte(i))} {
					send(seq, i*9000, marker, nalu)
					seq++
				}
			}
		}
		s := openSession(t, c.config(t, ""))
		for i := range byte(5) {
			u := next(t, s)
			whole := bytes.HasSuffix(u.Data, append([]byte{0, 0, 0, 1}, second(i)...))
			if got := u.Data[len(u.Data)-1]; got != i || !whole && (!marker || i > 0) { // by the first one it is learned
				t.Errorf("%s: unit %d is %x; want picture %d whole", name, i, u.Data, i)
			}
		}
		if name == "never" {
			s.client.Close()
			if u := next(t, s); u.Data[len(u.Data)-1] != 5 {
				t.Errorf("the last unit is %x; want picture 5", u.Data)
			}
		}
	}
}

// Descriptions of real cameras that break the standard: go2rtc 1663, mediamtx 227.
func TestDescriptionsOfRealCameras(t *testing.T) {
	t.Parallel()
	for _, lines := range []string{
		"v=0|o=- 1001 1 IN|s=VCP IPC Realtime stream|m=video 0 RTP/AVP 105|c=IN|a=control:rtsp://192.168.0.60/media/video1/video|a=rtpmap:105 H264/90000|a=fmtp:105 profile-level-id=640032; packetization-mode=1; sprop-parameter-sets=Z2QAMqw7UBQAWtCAAAH0AABhqEI=,aOqPLA==|a=recvonly",
		"v=0|o=- 1109162014219182 0 IN IP4 0.0.0.0|s=HIK Media Server V3.4.96|i=HIK Media Server Session Description : standard|e=NONE|c=IN c=IN IP4 0.0.0.0|t=0 0|a=control:*|m=video 0 RTP/AVP 96|i=Video Media|a=rtpmap:96 H264/90000|a=fmtp:96 profile-level-id=4D0014;packetization-mode=0|a=control:trackID=1",
	} {
		body := strings.ReplaceAll(lines, "|", "\r\n") + "\r\n"
		sdp, err := sdpunmarshaler.Unmarshal([]byte(body))
		must(t, err)
		var desc description.Session
		must(t, desc.Unmarshal2(sdp))
		if _, _, codec, err := choose(&desc); err != nil || codec.name != "H264" {
			t.Errorf("choose(%s) = %v, %v; want its H.264", lines, codec, err)
		}
	}
}

// A consumer that does not ask loses pictures, up to a key frame, and no memory.
func TestSlowConsumerLosesWholeGroups(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{})
	const total = maxUnits + 250
	c := startServer(t, &server{tcp: true, play: func(send func(uint16, uint32, bool, []byte)) {
		defer close(sent)
		for i := range uint32(total) {
			unit := slice(byte(i))
			if i%100 == 0 {
				unit = idr(byte(i))
			}
			send(uint16(i), i*900, true, unit)
			if i%50 == 0 {
				time.Sleep(time.Millisecond) // the server's own queue holds 256
			}
		}
	}})
	s := openSession(t, c.config(t, ""))
	<-sent
	must(t, waitFor(func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.arrivals == total }))
	for i := range maxUnits {
		if u := next(t, s); u.Missed != 0 || u.Data[len(u.Data)-1] != byte(i) {
			t.Fatalf("unit %d is %d, missed %d; want all that the queue holds", i, u.Data[len(u.Data)-1], u.Missed)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missed != 250 || s.bytes != 0 || !s.full {
		t.Errorf("missed %d, %d bytes queued; want 250 and 0", s.missed, s.bytes)
	}
}

func waitFor(ok func() bool) error {
	for limit := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			return errors.New("it does not happen within 30s")
		}
	}
	return nil
}

func TestCameraThatTakesUDPOnly(t *testing.T) {
	t.Parallel()
	c := startServer(t, &server{play: func(send func(uint16, uint32, bool, []byte)) {
		for i := range uint32(50) { // datagrams may come before the port is known
			send(uint16(i), i*9000, true, idr(byte(i)))
			time.Sleep(20 * time.Millisecond)
		}
	}})
	cfg := c.config(t, "")
	var warned []string
	cfg.Warn = func(kind, _ string) { warned = append(warned, kind) }
	s := openSession(t, cfg)
	next(t, s)
	if !slices.Equal(c.used, []gortsplib.Protocol{gortsplib.ProtocolUDP}) || !slices.Contains(warned, "transport") {
		t.Errorf("used %v, warned of %v; want UDP, and a word of it", c.used, warned)
	}
}

// The key asks for UDP at once, and not only after a camera has refused TCP.
func TestTransportUDP(t *testing.T) {
	t.Parallel()
	c := startServer(t, &server{tcp: true, play: func(send func(uint16, uint32, bool, []byte)) {
		for i := range uint32(50) { // datagrams may come before the port is known
			send(uint16(i), i*9000, true, idr(byte(i)))
			time.Sleep(20 * time.Millisecond)
		}
	}})
	cfg := c.config(t, "")
	cfg.UDP = true
	cfg.Warn = func(kind, text string) { t.Errorf("warning %s: %s; want none", kind, text) }
	next(t, openSession(t, cfg))
	if want := []gortsplib.Protocol{gortsplib.ProtocolUDP}; !slices.Equal(c.used, want) {
		t.Errorf("used %v; want %v", c.used, want)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		methods  []auth.VerifyMethod
		userinfo string
		basic    bool
		want     string
	}{
		"digest":           {[]auth.VerifyMethod{auth.VerifyMethodDigestMD5, auth.VerifyMethodDigestSHA256}, "me:s3cret@", false, ""},
		"digest preferred": {[]auth.VerifyMethod{auth.VerifyMethodBasic, auth.VerifyMethodDigestMD5}, "me:s3cret@", false, ""},
		"basic":            {[]auth.VerifyMethod{auth.VerifyMethodBasic}, "me:s3cret@", false, "allow_basic = true"},
		"basic allowed":    {[]auth.VerifyMethod{auth.VerifyMethodBasic}, "me:s3cret@", true, ""},
		"wrong":            {[]auth.VerifyMethod{auth.VerifyMethodDigestMD5}, "me:wr0ng@", false, "401 Unauthorized: the camera refuses this user and password"},
		"none":             {[]auth.VerifyMethod{auth.VerifyMethodDigestMD5}, "", false, "401 Unauthorized: want user and password in the address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startServer(t, &server{tcp: true, auth: test.methods})
			cfg := c.config(t, test.userinfo)
			cfg.AllowBasic = test.basic
			s, err := Open(t.Context(), cfg)
			if err == nil {
				s.Close()
			}
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wr0ng")) {
				t.Errorf("Open() = %v; want %q, and no password", err, test.want)
			}
			if refused := test.userinfo != "me:s3cret@"; Refused(err) != refused {
				t.Errorf("Refused(%v) = %v; want %v", err, !refused, refused)
			}
		})
	}
}

// rude is a server that answers each DESCRIBE with one reply.
func rude(t *testing.T, reply string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				b := make([]byte, 4096)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					_, after, _ := strings.Cut(string(b[:n]), "CSeq: ")
					seq, _, _ := strings.Cut(after, "\r\n")
					answer := reply
					if strings.HasPrefix(string(b[:n]), "OPTIONS") {
						answer = "200 OK\r\nPublic: DESCRIBE\r\n"
					}
					if _, err := fmt.Fprintf(conn, "RTSP/1.0 %sCSeq: %s\r\n\r\n", answer, seq); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

func TestRedirectsDoNotGetThePassword(t *testing.T) {
	t.Parallel()
	c := startServer(t, &server{tcp: true, auth: []auth.VerifyMethod{auth.VerifyMethodBasic}})
	from := rude(t, "302 Moved\r\nLocation: rtsp://"+c.s.RTSPAddress+"/live\r\n")
	cfg := c.config(t, "")
	cfg.AllowBasic = true
	var err error
	cfg.Address, err = ParseAddress("rtsp://me:s3cret@" + from + "/live")
	must(t, err)
	_, err = Open(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "redirects to "+c.s.RTSPAddress) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("Open() = %v; want the redirect named and not followed", err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	video := func(f format.Format) *description.Media {
		return &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{f}}
	}
	for want, c := range map[string]*server{
		"404 Not Found: the camera has no such stream":                   {tcp: true, status: base.StatusNotFound},
		"403 Forbidden: this user may not see this stream":               {tcp: true, status: base.StatusForbidden},
		"453 Not Enough Bandwidth: the camera accepts no further viewer": {tcp: true, status: base.StatusNotEnoughBandwidth},
		"no video in it, only audio (G711): want the path":               {tcp: true, desc: &description.Session{Medias: []*description.Media{audioMedia()}}},
		"its video is MPEGTS, which is not supported: want H264,":        {tcp: true, desc: &description.Session{Medias: []*description.Media{video(&format.MPEGTS{})}}},
	} {
		startServer(t, c)
		_, err := Open(t.Context(), c.config(t, ""))
		if err == nil || !strings.HasPrefix(err.Error(), "rtsp://"+c.s.RTSPAddress+"/live: "+want) {
			t.Errorf("Open() = %v; want %q", err, want)
		}
	}
	cfg := startServer(t, &server{tcp: true}).config(t, "")
	cfg.StallAfter = time.Millisecond
	s := openSession(t, cfg)
	s.mu.Lock()
	s.arrivals = 1 // the first picture may take longer
	s.mu.Unlock()
	if _, err := s.Next(t.Context(), func() {}); !errors.Is(err, ErrSilent) {
		t.Errorf("Next() = %v; want ErrSilent", err)
	}
}

func TestTheFirstVideoThatCanBeReadIsChosen(t *testing.T) {
	t.Parallel()
	other := &description.Media{Type: description.MediaTypeVideo, Formats: []format.Format{&format.MPEGTS{}}}
	media, _, codec, err := choose(&description.Session{Medias: []*description.Media{audioMedia(), other, h264Media(sps640), h264Media(sps320)}})
	if err != nil || codec.name != "H264" || !slices.Equal(media.Formats[0].(*format.H264).SPS, sps640) {
		t.Errorf("choose() = %v, %v, %v; want the first H.264", media, codec, err)
	}
}

// certificate makes one that the camera signed itself, for another name.
func certificate(t *testing.T) (cert tls.Certificate, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "IPCAM"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	path = filepath.Join(t.TempDir(), "camera.pem")
	must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	cert, path := certificate(t)
	_, strange := certificate(t)
	c := startServer(t, &server{tcp: true, auth: []auth.VerifyMethod{auth.VerifyMethodBasic}, s: &gortsplib.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}})
	for file, want := range map[string]string{"": "set ca_file to a file with", strange: "set ca_file", path: ""} {
		cfg := c.config(t, "me:s3cret@")
		cfg.CAFile = file
		s, err := Open(t.Context(), cfg)
		if err == nil {
			s.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Open() with ca_file %q = %v; want %q", file, err, want)
		}
	}
	plain := startServer(t, &server{tcp: true})
	cfg := c.config(t, "")
	cfg.Timeout, cfg.StallAfter = 50*time.Millisecond, 50*time.Millisecond
	cfg.Address, _ = ParseAddress("rtsps://" + plain.s.RTSPAddress + "/live")
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "want rtsp://") {
		t.Errorf("Open(rtsps:// of a plain server) = %v; want rtsp:// named", err)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	must(t, err)
	defer l.Close()
	c := startServer(t, &server{tcp: true})
	cfg := c.config(t, "")
	cfg.Address, err = ParseAddress("rtsp://" + l.Addr().String() + "/live")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := Open(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Open() = %v; want context.Canceled", err)
	}
	cfg.Timeout = 10 * time.Millisecond
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "no answer within") {
		t.Errorf("Open() = %v; want that there is no answer", err)
	}
}

func TestAddressShowsNoCredentials(t *testing.T) {
	for _, text := range []string{
		"rtsp://me:secret@camera:554/live/1",
		"rtsps://me:se%63ret@camera:554/live/1",
		"rtsp://camera:554/live/1?user=me&password=secret",
		"rtsp://camera:554/user=me_password=secret_channel=1.sdp",
	} {
		a, err := ParseAddress(text)
		must(t, err)
		shown := a.String() + a.Redact(" of "+text+": refused; 401 for "+text[strings.Index(text, "//"):])
		if strings.Contains(shown, "secret") || strings.Contains(shown, "se%63ret") || !strings.Contains(shown, "camera:554/") || !strings.Contains(shown, ": refused") {
			t.Errorf("ParseAddress(%q) shows %q; want the host, and no password", text, shown)
		}
		if want := strings.Replace(text, "se%63ret", "secret", 1); a.url.String() != want {
			t.Errorf("ParseAddress(%q) connects to %q", text, a.url)
		}
	}
	for _, text := range []string{"", "rtsp://", "rtsp:///x", "http://camera/secret", "camera", "rtsp://me:sec ret%zz@camera/", "rtsp://camera/x#secret"} {
		if _, err := ParseAddress(text); err == nil || strings.Contains(err.Error(), "sec") {
			t.Errorf("ParseAddress(%q) = %v; want an error that does not show the address", text, err)
		}
	}
}
