package main

import (
	"errors"
	"time"

	"github.com/perch-edge/perch/internal/credential"
	"github.com/perch-edge/perch/internal/nearest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/pkg/topology"
	"github.com/perch-edge/perch/pkg/worker"
)

// Config is the table [worker.NAME].
type Config struct {
	To         Target            `toml:"to" doc:"the receiver: https://HOST/FOLDER, s3://BUCKET/PREFIX?endpoint=HOST&region=REGION, or tus+https://HOST/UPLOADS"`
	Method     Method            `toml:"method" doc:"of an https receiver: PUT, to its address and the file's name, or POST, to its address"`
	Receipt    Proof             `toml:"receipt" doc:"what proves that the receiver has a file: status, head (same length), digest (same sha256) or content (read back); default: head, with POST digest"`
	TokenFile  string            `toml:"token_file" doc:"file with the bearer token, or the two keys of s3; or credential:NAME, of systemd; nobody else may read it"`
	CAFile     string            `toml:"ca_file" doc:"certificates (PEM) that the receiver's is verified with; default: the system's"`
	ClientCert string            `toml:"client_cert" doc:"certificate (PEM) that is shown to the receiver"`
	ClientKey  string            `toml:"client_key" doc:"its private key (PEM); nobody else may read it"`
	Priority   []sidecar.Class   `toml:"priority" doc:"which files go first; classes that are not named come last"`
	Parallel   int               `toml:"parallel" doc:"how many files are under way at once, 1 to 8"`
	Limit      topology.Bytes    `toml:"limit" doc:"most that is sent in a second, such as \"500kB\"; 0 is no limit"`
	Attempts   int               `toml:"attempts" doc:"refusals (4xx) after which a file is moved to rejected/"`
	StallAfter topology.Duration `toml:"stall_after" doc:"time without any progress after which an attempt has failed"`
	RetryMost  topology.Duration `toml:"retry_most" doc:"longest pause between attempts; the pauses grow from a second, at random"`
}

// DefaultConfig has no receiver: where data go is for the user to say.
func DefaultConfig() Config {
	return Config{Method: Put, Priority: sidecar.Classes(), Parallel: 2, Attempts: 5,
		StallAfter: topology.Duration(30 * time.Second), RetryMost: topology.Duration(5 * time.Minute)}
}

// Validate checks what the types cannot, and that the files of the settings
// are there and good.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) { errs = append(errs, topology.Bad(key, format, args...)) }
	if c.To.scheme == "" {
		bad("to", "%w", errTarget)
	}
	if c.Method == Post && c.To.scheme != schemeHTTP {
		bad("method", "POST is for an https receiver")
	}
	if c.Receipt == ByDigest && c.To.scheme == schemeTus {
		bad("receipt", "a tus server tells no sha256: want status, head or content")
	}
	if c.Receipt == ByContent && c.Method == Post {
		bad("receipt", "what was sent by POST has no known address to be read from: want status, head or digest")
	}
	for i, class := range c.Priority {
		if rankOf(class, c.Priority) < i {
			bad("priority", "class %q stands there twice", class)
		}
		if rankOf(class, sidecar.Classes()) == len(sidecar.Classes()) {
			bad("priority", "unknown class %q%s", class, nearest.Hint(class, sidecar.Classes()))
		}
	}
	if c.Parallel < 1 || c.Parallel > 8 {
		bad("parallel", "want 1 to 8")
	}
	if c.Limit != 0 && c.Limit < 1000 {
		bad("limit", `want at least "1kB", or 0 for no limit`)
	}
	if c.Attempts < 1 || c.Attempts > 100 {
		bad("attempts", "want 1 to 100")
	}
	if d := c.StallAfter.D(); d < time.Second || d > time.Hour {
		bad("stall_after", `want "1s" to "1h"`)
	}
	if d := c.RetryMost.D(); d < time.Second || d > 24*time.Hour {
		bad("retry_most", `want "1s" to "24h"`)
	}
	return errors.Join(append(errs, c.checkFiles()...)...)
}

func (c *Config) checkFiles() (errs []error) {
	if err := c.checkSecret(); err != nil && !errors.Is(err, credential.ErrElsewhere) {
		errs = append(errs, topology.Bad("token_file", "%w", err))
	}
	return append(errs, credential.Check(c.CAFile, c.ClientCert, c.ClientKey)...)
}

func (c *Config) checkSecret() (err error) {
	switch {
	case c.TokenFile == "" && c.To.scheme == schemeS3:
		return errKeys
	case c.TokenFile == "":
		return nil
	case c.To.scheme == schemeS3:
		_, err = readKeys(c.TokenFile)
	default:
		_, err = credential.Token(c.TokenFile)
	}
	return err
}

// proof is what counts as a receipt.
func (c *Config) proof() Proof {
	switch {
	case c.Receipt != "":
		return c.Receipt
	case c.Method == Post:
		return ByDigest
	}
	return ByHead
}

// rankOf is a class's place in a list; that of those that are not in it is its length.
func rankOf(class sidecar.Class, list []sidecar.Class) int {
	for i, c := range list {
		if c == class {
			return i
		}
	}
	return len(list)
}

// Rings is the shared memory that the file events take.
func (c *Config) Rings() []worker.Ring { return []worker.Ring{worker.FileHistory()} }

// Method is how a file is sent to an https receiver.
type Method string

// The methods.
const (
	Put  Method = "PUT"
	Post Method = "POST"
)

// UnmarshalText reads one of the two words.
func (m *Method) UnmarshalText(text []byte) error {
	switch v := Method(text); v {
	case Put, Post:
		*m = v
		return nil
	}
	return errors.New(`want "PUT" or "POST"`)
}

// Proof is what is to prove that a receiver has a file.
type Proof sidecar.Proof

// The proofs, the weakest first.
const (
	ByStatus  = Proof(sidecar.ByStatus)
	ByHead    = Proof(sidecar.ByHead)
	ByDigest  = Proof(sidecar.ByDigest)
	ByContent = Proof(sidecar.ByContent)
)

// UnmarshalText reads one of the four words.
func (p *Proof) UnmarshalText(text []byte) error {
	switch v := Proof(text); v {
	case ByStatus, ByHead, ByDigest, ByContent:
		*p = v
		return nil
	}
	return errors.New(`want "status", "head", "digest" or "content"`)
}
