package sink

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	v5 "github.com/eclipse/paho.golang/packets"
)

// refusal is a reason code of MQTT 5 (section 2.4) that stands for a failure, and what the broker
// added.
type refusal struct {
	code  byte
	words string
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("%s (0x%02X)", r.meaning(), r.code)
	if r.words != "" {
		text += fmt.Sprintf(": %.200q", r.words)
	}
	return text
}

func (r *refusal) meaning() string {
	switch r.code {
	case v5.DisconnectNormalDisconnection:
		return "the broker ended the connection"
	case v5.ConnackUnsupportedProtocolVersion:
		return "the broker speaks neither MQTT 5 nor 3.1.1"
	case v5.ConnackInvalidClientID:
		return "the broker does not take the client id"
	case v5.ConnackBadUsernameOrPassword:
		return "wrong user or password: see user and token_file"
	case v5.ConnackNotAuthorized:
		return "not authorised: see user and token_file, and the broker's access list"
	case v5.ConnackServerUnavailable:
		return "the broker is not available"
	case v5.ConnackServerBusy:
		return "the broker is busy"
	case v5.ConnackBanned:
		return "the broker has banned this client"
	case v5.DisconnectServerShuttingDown:
		return "the broker is shutting down"
	case v5.DisconnectKeepAliveTimeout:
		return "the broker received nothing within the keep-alive time"
	case v5.DisconnectSessionTakenOver:
		return "another client took over the client id"
	case v5.ConnackTopicNameInvalid:
		return "the broker does not take the topic"
	case v5.ConnackPacketTooLarge:
		return "packet too large"
	case v5.DisconnectMessageRateTooHigh:
		return "the broker wants messages to come less often"
	case v5.ConnackQuotaExceeded:
		return "the broker's quota is exceeded"
	case v5.DisconnectAdministrativeAction:
		return "the broker's administrator ended the connection"
	case v5.ConnackPayloadFormatInvalid:
		return "the broker does not take the payload's format"
	case v5.ConnackUseAnotherServer, v5.ConnackServerMoved:
		return "the broker wants another server to be used: see to"
	case v5.ConnackConnectionRateExceeded:
		return "the broker wants connections to come less often"
	}
	return "the broker refuses"
}

// ours reports whether a person has to act before the broker takes anything.
func (r *refusal) ours() bool {
	switch r.code {
	case v5.ConnackUnsupportedProtocolVersion, v5.ConnackInvalidClientID, v5.ConnackBadUsernameOrPassword, v5.ConnackNotAuthorized,
		v5.ConnackBanned, v5.ConnackBadAuthenticationMethod, v5.DisconnectSessionTakenOver, v5.ConnackUseAnotherServer, v5.ConnackServerMoved:
		return true
	}
	return false
}

// temporary reports whether a message that was refused may be taken later: the refusal is not about it.
func (r *refusal) temporary() bool {
	switch r.code {
	case v5.PubackQuotaExceeded, v5.PubackPacketIdentifierInUse, v5.DisconnectMessageRateTooHigh, v5.ConnackServerBusy, v5.ConnackServerUnavailable:
		return true
	}
	return r.ours()
}

// aboutMessage reports whether a connection ended because of a message that was sent: surely, or
// perhaps, since brokers of MQTT 3.1.1 have no other answer than to close the connection.
func aboutMessage(cause error) (perhaps, surely bool) {
	var r *refusal
	if !errors.As(cause, &r) {
		return hungUp(cause), false
	}
	switch r.code {
	case v5.DisconnectTopicNameInvalid, v5.DisconnectPacketTooLarge, v5.DisconnectPayloadFormatInvalid:
		return true, true
	case v5.DisconnectUnspecifiedError, v5.DisconnectMalformedPacket, v5.DisconnectProtocolError, v5.DisconnectImplementationSpecificError:
		return true, false
	}
	return false, false
}

// problem is a cause as the caller wants it: a *Problem where a person has to act.
func problem(doing string, cause error) error {
	err := fmt.Errorf("%s: %w", doing, cause)
	var r *refusal
	if errors.As(cause, &r) && r.ours() {
		return &Problem{Err: err, Ours: true}
	}
	return err
}

// hungUp reports whether the broker closed the connection without a reason.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
