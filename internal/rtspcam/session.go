package rtspcam

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/pion/rtp"

	"github.com/perch-edge/perch/internal/clock"
)

// Config says which camera, and how.
type Config struct {
	Address    Address
	UDP        bool          // begin with UDP, not with TCP
	AllowBasic bool          // send the password in clear if the camera wants that
	CAFile     string        // PEM certificates to verify rtsps:// by; "" is the system's
	Timeout    time.Duration // of each answer
	StallAfter time.Duration // how long the camera may send no picture

	Now  func() clock.Stamp
	Warn func(kind, text string) // is called for faults that do not end the session; from other goroutines
}

// Unit is an access unit: what a decoder makes a picture of.
type Unit struct {
	Data     []byte
	Captured time.Duration // boot time
	Shape    Shape         // of this and the next pictures
	Key      bool
	Hidden   bool // it gives no picture by itself
	Missed   int  // units before this one that were not delivered

	mark mark
}

// ErrSilent means that no picture came for too long.
var ErrSilent = errors.New("silent")

const (
	firstPicture = 10 * time.Second // how much longer than usual the first picture may take
	settleGap    = 100 * time.Millisecond
	settleMost   = time.Second
	maxUnits     = 600
	maxBytes     = 32 << 20
)

// Session is a camera that sends. It is made by Open, and for one goroutine,
// but for Close.
type Session struct {
	cfg    Config
	client *gortsplib.Client
	done   chan struct{} // the client has ended
	media  *description.Media
	codec  *codec
	hz     float64 // by the description
	udp    bool
	begun  time.Duration // boot time of PLAY

	// The unit that is being received; for the library's goroutine.
	parts     [][]byte
	started   time.Duration // when its first packet came
	rtp       uint32
	ntp       time.Time // of its capture, by the camera's wall clock
	hasNTP    bool
	begunUnit bool
	lost      bool // packets were lost since the last unit
	late      bool // the marker bit does not end units
	marked    bool // it has been seen
	lastRTP   uint32
	lastPTS   time.Duration
	interval  time.Duration // between pictures, usually
	any       bool
	pending   [][]byte // parts without a picture, for the next unit

	mu       sync.Mutex
	line     timeline
	queue    []Unit
	bytes    int
	playing  bool // a key frame has been there
	full     bool // discarding until a key frame
	missed   int
	settled  bool
	arrivals int
	shape    Shape
	lastSeen time.Duration
	err      error
	wake     chan struct{}
	warned   map[string]bool
}

// Open connects to a camera, chooses its video and lets it send. It tries UDP
// when the camera refuses TCP. The caller must Close the session.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, cfg, cfg.UDP, tlsConfig)
	if bad := (liberrors.ErrClientBadStatusCode{}); !cfg.UDP && !cfg.Address.secure() &&
		(errors.As(err, &bad) && bad.Code == base.StatusUnsupportedTransport || errors.As(err, &liberrors.ErrClientServerRequestedUDP{})) {
		cfg.Warn("transport", `the camera sends over UDP only: using UDP, as with transport = "udp"`)
		s, err = open(ctx, cfg, true, tlsConfig)
	}
	if err != nil {
		return nil, explain(cfg, err)
	}
	return s, nil
}

// Name is the format of the video, for people.
func (s *Session) Name() string { return s.codec.name }

// FourCC is the format of the video, as AVI and IVF have it.
func (s *Session) FourCC() string { return s.codec.fourCC }

func open(ctx context.Context, cfg Config, udp bool, tlsConfig *tls.Config) (*Session, error) {
	s := &Session{cfg: cfg, udp: udp, wake: make(chan struct{}, 1), warned: map[string]bool{}}
	guard := &guard{cfg: cfg, tls: tlsConfig}
	protocol := gortsplib.ProtocolTCP
	if udp {
		protocol = gortsplib.ProtocolUDP
	}
	s.client = &gortsplib.Client{Scheme: cfg.Address.url.Scheme, Host: cfg.Address.url.Host, Protocol: &protocol, TLSConfig: tlsConfig,
		ReadTimeout: max(cfg.Timeout, cfg.StallAfter), WriteTimeout: cfg.Timeout, UserAgent: "perch",
		DialContext: guard.dial, DialTLSContext: guard.dialTLS, OnResponse: guard.response,
		OnPacketsLost:     func(uint64) { s.loss() },
		OnDecodeError:     func(error) {}, // what is lost is counted by the units
		OnRequest:         func(*base.Request) {},
		OnServerRequest:   func(*base.Request) {},
		OnServerResponse:  func(*base.Response) {},
		OnTransportSwitch: func(error) {},
	}
	if err := s.client.Start(); err != nil {
		return nil, err
	}
	// The client knows no context: closing it ends what it does.
	deadline, cancel := context.WithTimeout(ctx, 2*cfg.Timeout)
	defer cancel()
	stop := context.AfterFunc(deadline, s.client.Close)
	err := s.setUp()
	if !stop() {
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case err != nil && guard.why == nil:
			err = fmt.Errorf("no answer within %v", 2*cfg.Timeout)
		}
	}
	if guard.why != nil {
		err = guard.why
	}
	if err != nil {
		s.client.Close()
		return nil, err
	}
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		err := s.client.Wait()
		if !s.codec.whole && len(s.parts) > 0 && (s.late || !s.marked) {
			s.unit(cfg.Now()) // nothing else shows that it is complete
		}
		s.fail(err)
	}()
	return s, nil
}

func (s *Session) setUp() error {
	desc, response, err := s.client.Describe(s.cfg.Address.url)
	if err != nil {
		return err
	}
	media, forma, codec, err := choose(desc)
	if err != nil {
		return err
	}
	s.media, s.codec, s.hz = media, codec, frameRate(response.Body)
	s.line = timeline{rate: max(forma.ClockRate(), 1), warn: s.warn}
	if _, err := s.client.Setup(desc.BaseURL, media, 0, 0); err != nil {
		return err
	}
	s.client.OnPacketRTP(media, forma, s.packet)
	s.begun = s.cfg.Now().Boot
	s.lastSeen = s.begun
	_, err = s.client.Play(nil)
	return err
}

// frameRate reads a=framerate of the description's video (RFC 4566, section 6).
func frameRate(sdp []byte) float64 {
	video := false
	for line := range bytes.Lines(sdp) {
		text := strings.TrimSpace(string(line))
		if strings.HasPrefix(text, "m=") {
			if video {
				break
			}
			video = strings.HasPrefix(text, "m=video")
		}
		if value, ok := strings.CutPrefix(text, "a=framerate:"); ok && video {
			hz, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return plausible(hz)
			}
		}
	}
	return 0
}

// warn reports a kind of fault once per session.
func (s *Session) warn(kind, text string) {
	if !s.warned[kind] {
		s.warned[kind] = true
		s.cfg.Warn(kind, text)
	}
}

// loss is called before the packet that shows it.
func (s *Session) loss() {
	s.lost = true
	s.parts, s.begunUnit = nil, false
	_ = s.codec.restart() // it succeeded when the codec was made
}

// packet takes a packet, on the library's goroutine.
func (s *Session) packet(pkt *rtp.Packet) {
	now := s.cfg.Now()
	if s.begunUnit && pkt.Timestamp != s.rtp {
		if !s.codec.whole && len(s.parts) > 0 {
			s.unit(now)
		}
		s.parts, s.begunUnit = nil, false
	}
	if !s.begunUnit {
		s.begunUnit, s.rtp, s.started = true, pkt.Timestamp, now.Boot
		s.ntp, s.hasNTP = s.client.PacketNTP(s.media, pkt)
	}
	parts, err := s.codec.packet(pkt)
	if err != nil && !errors.Is(err, errMore) { // the unit has a hole
		s.loss()
		return
	}
	s.parts = append(s.parts, parts...)
	s.marked = s.marked || pkt.Marker
	if len(s.parts) > 0 && (s.codec.whole || pkt.Marker && !s.late) {
		s.unit(now)
		s.parts, s.begunUnit = nil, false
	}
}

// unit takes the unit of s.parts.
func (s *Session) unit(now clock.Stamp) {
	unit := s.parts
	if len(s.pending) > 0 {
		unit = append(s.pending, unit...)
	}
	has := s.codec.look(unit)
	if !has.picture { // parameter sets in a unit of their own
		if s.pending = unit; len(s.pending) > 64 {
			s.pending = nil
		}
		return
	}
	s.pending = nil
	if !has.first {
		if s.any && !s.lost && s.rtp == s.lastRTP && !s.late {
			s.late = true
			s.warn("marker", "the camera marks each slice as the end of a picture: pictures are delivered when the next one begins")
		}
		s.lost = true
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	lag := now.Wall.Add(s.started - now.Boot).Sub(s.ntp)
	m := s.line.observe(s.rtp, s.started, lag, s.hasNTP)
	s.count(m)
	s.lastRTP, s.any = s.rtp, true
	s.settle(m)
	s.lastSeen = now.Boot
	s.enqueue(unit, has, m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// count keeps the distance of pictures, and counts those that were lost by it.
func (s *Session) count(m mark) {
	gap := m.pts - s.lastPTS
	s.lastPTS = m.pts
	if s.lost && s.any {
		n := 1
		if s.interval > 0 && gap > 0 && !m.byArrival {
			n = int(math.Round(float64(gap)/float64(s.interval))) - 1
		}
		s.missed += min(max(n, 1), 1000)
	} else if s.any && gap > 0 && !m.byArrival && !m.repeated {
		if s.interval == 0 || gap < s.interval {
			s.interval = gap
		} else {
			s.interval += (gap - s.interval) / 8
		}
	}
	s.lost = false
}

// settle detects the end of the pictures of the past, which are sent at once.
func (s *Session) settle(m mark) {
	s.arrivals++
	if s.settled || s.arrivals < 2 {
		return
	}
	before := s.lastSeen
	s.settled = m.arrived-before >= max(s.interval/2, time.Millisecond)
}

func (s *Session) enqueue(parts [][]byte, has contents, m mark) {
	if has.shape != nil {
		s.shape = *has.shape
		if s.hz > 0 {
			s.shape.Hz = s.hz
		}
	}
	if !s.playing {
		s.playing = has.key
	}
	if s.full && has.key {
		s.full = false
	}
	if s.playing && (len(s.queue) >= maxUnits || s.bytes >= maxBytes) {
		s.full = true
		s.warn("slow", "decoding does not keep up with the camera: pictures are discarded; want a smaller stream of the camera, or a faster machine")
	}
	if !s.playing || s.full {
		s.missed++
		return
	}
	data := s.codec.join(parts)
	if len(data) == 0 {
		s.missed++
		return
	}
	s.queue = append(s.queue, Unit{Data: data, Shape: s.shape, Key: has.key, Hidden: has.hidden, Missed: s.missed, mark: m})
	s.bytes += len(data)
	s.missed = 0
}

func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		if errors.Is(err, liberrors.ErrClientTerminated{}) {
			err = errors.New("the session was closed")
		}
		s.err = explain(s.cfg, err)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Begin waits for the first unit and returns what its pictures are. Next returns
// that unit. alive is called while it waits.
func (s *Session) Begin(ctx context.Context, alive func()) (Shape, error) {
	if err := s.wait(ctx, alive); err != nil {
		return Shape{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue[0].Shape, nil
}

// Next waits for the next unit. Its errors are ctx's, ErrSilent, and how the
// session ended, once all that came before has been returned. alive is called
// while it waits.
func (s *Session) Next(ctx context.Context, alive func()) (Unit, error) {
	if err := s.wait(ctx, alive); err != nil {
		return Unit{}, err
	}
	synced := s.cfg.Now().Synced
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.queue[0]
	s.queue[0] = Unit{}
	s.queue = s.queue[1:]
	s.bytes -= len(u.Data)
	u.Captured = s.line.captured(u.mark, synced)
	return u, nil
}

// KeyFrameAfter is how long no key frame has come since the beginning; 0 when
// one has.
func (s *Session) KeyFrameAfter() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.playing || s.arrivals == 0 {
		return 0
	}
	return s.cfg.Now().Boot - s.begun
}

// wait waits for a unit that may be delivered.
func (s *Session) wait(ctx context.Context, alive func()) error {
	for {
		again, err := s.look()
		if again == 0 || err != nil {
			return err
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-s.wake:
			timer.Stop()
		case <-timer.C:
			alive()
		}
	}
}

// look returns when to look again for a unit; 0 means that one is there.
func (s *Session) look() (again time.Duration, err error) {
	now := s.cfg.Now().Boot
	s.mu.Lock()
	defer s.mu.Unlock()
	quiet := now - s.lastSeen
	if len(s.queue) > 0 {
		if s.settled || s.err != nil || quiet >= settleGap || now-s.queue[0].mark.arrived >= settleMost {
			s.settled = true
			return 0, nil
		}
		return settleGap - quiet, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	patience := s.cfg.StallAfter
	if s.arrivals == 0 {
		patience += firstPicture
	}
	if quiet >= patience {
		return 0, fmt.Errorf("%w: no picture came for %v", ErrSilent, patience)
	}
	return min(patience-quiet, 250*time.Millisecond), nil
}

// Close ends the session. What it has not returned is lost.
func (s *Session) Close() {
	s.client.Close()
	<-s.done
}

// guard keeps credentials from all but the camera.
type guard struct {
	cfg Config
	tls *tls.Config
	why error // it refused; set before the client's error
}

// dial connects to the camera. A redirect would lead elsewhere.
func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if u := g.cfg.Address.url; g.cfg.Address.hasCredentials() || g.cfg.Address.secure() {
		port := u.Port()
		if port == "" {
			port = map[bool]string{false: "554", true: "322"}[g.cfg.Address.secure()]
		}
		if want := net.JoinHostPort(u.Hostname(), port); address != want {
			g.why = fmt.Errorf("it redirects to %s: not followed, since user and password are for %s only; if that is the camera, set its address in input", address, want)
			return nil, g.why
		}
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// dialTLS returns a connection whose other end has been verified.
func (g *guard) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	plain, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := g.tls.Clone()
	config.ServerName = g.cfg.Address.url.Hostname()
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = plain.Close() // nothing was sent
		g.why = fmt.Errorf("TLS handshake: %w", err)
		return nil, g.why
	}
	return conn, nil
}

// response removes offers that must not be accepted.
func (g *guard) response(r *base.Response) {
	if r.StatusCode != base.StatusUnauthorized || g.cfg.AllowBasic || g.cfg.Address.secure() || !g.cfg.Address.hasCredentials() {
		return
	}
	var safe base.HeaderValue
	offers := r.Header["WWW-Authenticate"]
	for _, offer := range offers {
		if !strings.HasPrefix(strings.ToLower(strings.TrimSpace(offer)), "basic") {
			safe = append(safe, offer)
		}
	}
	if r.Header["WWW-Authenticate"] = safe; len(safe) == 0 && len(offers) > 0 {
		g.why = errors.New("it wants the password in clear (Basic authentication): switch on Digest in the camera, use rtsps://, or set allow_basic = true where nobody can listen")
	}
}
