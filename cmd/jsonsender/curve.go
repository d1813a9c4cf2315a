package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/pkg/msg"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// curveKeys are those of zmq+tcp; nil where the topology names none.
func (c *Config) curveKeys() (*msg.CurveKeys, error) {
	if c.CurveKeyFile == "" && c.CurveReceiver == "" {
		return nil, nil
	}
	text, err := credential.File(c.CurveKeyFile)
	if err != nil {
		return nil, err
	}
	keys := &msg.CurveKeys{Secret: strings.TrimSpace(string(text)), Peer: c.CurveReceiver}
	if _, err := msg.CurvePublic(keys.Secret); err != nil {
		return nil, fmt.Errorf("%s: %w", c.CurveKeyFile, err)
	}
	return keys, nil
}

// checkCurve finds keys that are none. The file may not be there yet: see curveKey, and Check.
func (c *Config) checkCurve() (errs []error) {
	if (c.CurveKeyFile == "") != (c.CurveReceiver == "") {
		return []error{topology.Bad("curve_key_file", "curve_key_file and curve_receiver_key go together")}
	}
	if c.CurveKeyFile == "" {
		return nil
	}
	if _, err := c.curveKeys(); err != nil && !errors.Is(err, credential.ErrElsewhere) && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, topology.Bad("curve_key_file", "%w", err))
	}
	if err := msg.CheckCurvePublic(c.CurveReceiver); err != nil {
		errs = append(errs, topology.Bad("curve_receiver_key", "%w", err))
	}
	return errs
}

// Check finds out whether the CURVE key has been made.
func (c *Config) Check(context.Context) (warning, err error) {
	if _, err := c.curveKeys(); errors.Is(err, fs.ErrNotExist) {
		return nil, topology.Bad("curve_key_file", "%w: jsonsender curve-key makes it", err)
	}
	return nil, nil
}

// curveKey prints the public key of this box, for the receiver. It makes the secret one where there is
// none yet.
func curveKey(_ context.Context, of worker.Asked, cfg Config) error {
	if cfg.CurveKeyFile == "" || strings.HasPrefix(cfg.CurveKeyFile, credential.Prefix) {
		return errors.New("want curve_key_file, the path of a file, in the settings")
	}
	text, err := credential.File(cfg.CurveKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = newCurveKey(cfg.CurveKeyFile)
	}
	if err != nil {
		return err
	}
	public, err := msg.CurvePublic(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.CurveKeyFile, err)
	}
	_, err = fmt.Fprintln(of.Out, public)
	return err
}

// newCurveKey writes a secret key to a file that does not exist.
func newCurveKey(name string) ([]byte, error) {
	secret, err := msg.NewCurveSecret()
	if err != nil {
		return nil, fmt.Errorf("make CURVE key: %w", err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	text := []byte(secret + "\n")
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(name))
	}
	return text, nil
}
