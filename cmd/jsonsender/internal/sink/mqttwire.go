package sink

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	v5 "github.com/eclipse/paho.golang/packets"
	v4 "github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/perch-edge/perch/cmd/jsonsender/internal/format"
)

// maxIncoming bounds what a broker may send at once: what is subscribed to are states and
// announcements of this box.
const maxIncoming = 1 << 20

// hello is what a client begins with.
type hello struct {
	id        string
	user      string
	password  string
	secret    bool // there is a password
	keepAlive uint16
	will      format.Publication
	willQoS   byte
}

// welcome is what a broker allows. Zero values are those of a broker that names no limits.
type welcome struct {
	code           byte
	reason         string
	receiveMaximum int    // QoS 1 messages under way at once
	packetMaximum  int    // bytes of a packet
	keepAlive      uint16 // that the broker wants in place of ours
	noQoS1         bool
	noRetain       bool
}

// message is a packet as it came: an acknowledgement, a message of a topic, or the end.
type message struct {
	kind   byte // as packets of both versions number them
	id     uint16
	code   byte   // of a PUBACK, SUBACK or DISCONNECT, as MQTT 5 has them
	reason string // in the broker's words
	topic  string
	body   []byte
}

// wire is how one version of the protocol writes and reads packets.
type wire interface {
	version() byte
	hello(h *hello) []byte
	welcome(packet []byte) (welcome, error)
	// publish writes a message; qos 0 has no id. recordID is "" for what is no record.
	publish(p *format.Publication, qos byte, id uint16, recordID string) []byte
	subscribe(id uint16, topics []string) []byte
	goodbye() []byte
	read(packet []byte) (message, error)
}

// readPacket reads one packet, header and all.
func readPacket(r *bufio.Reader) ([]byte, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	packet, length := []byte{first}, 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		packet, length = append(packet, b), length|int(b&0x7f)<<shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return nil, errors.New("a packet whose length has more than four bytes: this is no MQTT")
		}
	}
	if length > maxIncoming {
		return nil, fmt.Errorf("a packet of %d bytes: want %d at most", length, maxIncoming)
	}
	at := len(packet)
	packet = append(packet, make([]byte, length)...)
	_, err = io.ReadFull(r, packet[at:])
	return packet, unexpected(err)
}

// unexpected is the error of a packet that was cut off.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// written is a packet's bytes; a buffer takes all that is written to it.
func written(write func(w io.Writer) error) []byte {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		panic("sink: write a packet to memory: " + err.Error())
	}
	return b.Bytes()
}

// mqtt5 is version 5.
type mqtt5 struct{}

func (mqtt5) version() byte { return 5 }

func (mqtt5) hello(h *hello) []byte {
	receive, most := uint16(16), uint32(maxIncoming)
	c := &v5.Connect{
		ProtocolName: "MQTT", ProtocolVersion: 5, ClientID: h.id, CleanStart: true, KeepAlive: h.keepAlive,
		Username: h.user, UsernameFlag: h.user != "", Password: []byte(h.password), PasswordFlag: h.secret,
		WillFlag: true, WillTopic: h.will.Topic, WillMessage: h.will.Body, WillRetain: h.will.Retain, WillQOS: h.willQoS,
		Properties: &v5.Properties{ReceiveMaximum: &receive, MaximumPacketSize: &most}, WillProperties: &v5.Properties{},
	}
	return written(func(w io.Writer) error { _, err := c.WriteTo(w); return err })
}

func (mqtt5) welcome(packet []byte) (welcome, error) {
	if len(packet) == 4 { // a broker of an older version answers in its own
		return mqtt4{}.welcome(packet)
	}
	p, err := v5.ReadPacket(bytes.NewReader(packet))
	if err != nil {
		return welcome{}, err
	}
	c, ok := p.Content.(*v5.Connack)
	if !ok {
		return welcome{}, fmt.Errorf("packet type %d in answer to a CONNECT: want a CONNACK", packet[0]>>4)
	}
	w := welcome{code: c.ReasonCode, reason: c.Properties.ReasonString, packetMaximum: maxRemaining, receiveMaximum: maxUnderWay}
	if c.Properties.ServerReference != "" {
		w.reason += " (it names " + c.Properties.ServerReference + ")"
	}
	if n := c.Properties.ReceiveMaximum; n != nil {
		w.receiveMaximum = max(1, min(int(*n), maxUnderWay))
	}
	if n := c.Properties.MaximumPacketSize; n != nil {
		w.packetMaximum = int(min(*n, maxRemaining))
	}
	if n := c.Properties.ServerKeepAlive; n != nil {
		w.keepAlive = *n
	}
	w.noQoS1 = c.Properties.MaximumQOS != nil && *c.Properties.MaximumQOS == 0
	w.noRetain = c.Properties.RetainAvailable != nil && *c.Properties.RetainAvailable == 0
	return w, nil
}

func (mqtt5) publish(p *format.Publication, qos byte, id uint16, recordID string) []byte {
	m := &v5.Publish{Topic: p.Topic, Payload: p.Body, Retain: p.Retain, QoS: qos, PacketID: id, Properties: &v5.Properties{}}
	if recordID != "" {
		m.Properties.User = []v5.User{{Key: "id", Value: recordID}}
	}
	return written(func(w io.Writer) error { _, err := m.WriteTo(w); return err })
}

func (mqtt5) subscribe(id uint16, topics []string) []byte {
	s := &v5.Subscribe{PacketID: id, Properties: &v5.Properties{}}
	for _, t := range topics {
		s.Subscriptions = append(s.Subscriptions, v5.SubOptions{Topic: t, NoLocal: true})
	}
	return written(func(w io.Writer) error { _, err := s.WriteTo(w); return err })
}

func (mqtt5) goodbye() []byte {
	d := &v5.Disconnect{Properties: &v5.Properties{}}
	return written(func(w io.Writer) error { _, err := d.WriteTo(w); return err })
}

func (mqtt5) read(packet []byte) (message, error) {
	m := message{kind: packet[0] >> 4}
	if m.kind == v5.DISCONNECT && len(packet) == 2 { // a reason of 0 may be left out
		return m, nil
	}
	p, err := v5.ReadPacket(bytes.NewReader(packet))
	if err != nil {
		return m, err
	}
	switch c := p.Content.(type) {
	case *v5.Puback:
		m.id, m.code, m.reason = c.PacketID, c.ReasonCode, c.Properties.ReasonString
	case *v5.Suback:
		m.id, m.code, m.reason = c.PacketID, worst(c.Reasons), c.Properties.ReasonString
	case *v5.Disconnect:
		m.code, m.reason = c.ReasonCode, c.Properties.ReasonString
		if c.Properties.ServerReference != "" {
			m.reason += " (it names " + c.Properties.ServerReference + ")"
		}
	case *v5.Publish:
		m.topic, m.body = c.Topic, c.Payload
	}
	return m, nil
}

// worst is the greatest of several codes: those of failures are.
func worst(codes []byte) (code byte) {
	for _, c := range codes {
		code = max(code, c)
	}
	return code
}

// mqtt4 is version 3.1.1, whose number in packets is 4.
type mqtt4 struct{}

func (mqtt4) version() byte { return 4 }

func (mqtt4) hello(h *hello) []byte {
	c := v4.NewControlPacket(v4.Connect).(*v4.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.ClientIdentifier, c.CleanSession, c.Keepalive = "MQTT", 4, h.id, true, h.keepAlive
	// A password never goes without a user there (3.1.2.9).
	c.Username, c.UsernameFlag, c.Password, c.PasswordFlag = h.user, h.user != "" || h.secret, []byte(h.password), h.secret
	c.WillFlag, c.WillTopic, c.WillMessage, c.WillRetain, c.WillQos = true, h.will.Topic, h.will.Body, h.will.Retain, h.willQoS
	return written(c.Write)
}

func (mqtt4) welcome(packet []byte) (welcome, error) {
	p, err := v4.ReadPacket(bytes.NewReader(packet))
	if err != nil {
		return welcome{}, err
	}
	c, ok := p.(*v4.ConnackPacket)
	if !ok {
		return welcome{}, fmt.Errorf("packet type %d in answer to a CONNECT: want a CONNACK", packet[0]>>4)
	}
	// mosquitto's own limit on what is under way: others have higher ones.
	w := welcome{packetMaximum: maxRemaining, receiveMaximum: 20}
	switch c.ReturnCode {
	case v4.Accepted:
	case v4.ErrRefusedBadProtocolVersion:
		w.code = v5.ConnackUnsupportedProtocolVersion
	case v4.ErrRefusedIDRejected:
		w.code = v5.ConnackInvalidClientID
	case v4.ErrRefusedServerUnavailable:
		w.code = v5.ConnackServerUnavailable
	case v4.ErrRefusedBadUsernameOrPassword:
		w.code = v5.ConnackBadUsernameOrPassword
	case v4.ErrRefusedNotAuthorised:
		w.code = v5.ConnackNotAuthorized
	default:
		w.code = v5.ConnackUnspecifiedError
	}
	return w, nil
}

func (mqtt4) publish(p *format.Publication, qos byte, id uint16, _ string) []byte {
	m := v4.NewControlPacket(v4.Publish).(*v4.PublishPacket)
	m.TopicName, m.Payload, m.Retain, m.Qos, m.MessageID = p.Topic, p.Body, p.Retain, qos, id
	return written(m.Write)
}

func (mqtt4) subscribe(id uint16, topics []string) []byte {
	s := v4.NewControlPacket(v4.Subscribe).(*v4.SubscribePacket)
	s.MessageID, s.Topics, s.Qoss = id, topics, make([]byte, len(topics))
	return written(s.Write)
}

func (mqtt4) goodbye() []byte { return written(v4.NewControlPacket(v4.Disconnect).Write) }

func (mqtt4) read(packet []byte) (message, error) {
	m := message{kind: packet[0] >> 4}
	p, err := v4.ReadPacket(bytes.NewReader(packet))
	if err != nil {
		return m, err
	}
	switch c := p.(type) {
	case *v4.PubackPacket:
		m.id = c.MessageID
	case *v4.SubackPacket:
		m.id, m.code = c.MessageID, worst(c.ReturnCodes)
	case *v4.PublishPacket:
		m.topic, m.body = c.TopicName, c.Payload
	}
	return m, nil
}
