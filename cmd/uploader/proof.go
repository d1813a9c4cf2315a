package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"sync/atomic"

	"github.com/perch-edge/perch/internal/sidecar"
)

// object is what is sent: a file, or its sidecar.
type object struct {
	name  string
	key   string // for Idempotency-Key: the same in each attempt
	media string
	bytes int64
	sum   string // sha256 in hexadecimal
	from  io.ReaderAt
	once  bool // never to be replaced at the receiver
}

// body is the object's bytes from an offset on.
func (o *object) body(at, n int64) *body {
	return &body{Reader: io.NewSectionReader(o.from, at, n), want: n}
}

// body notes down how much of it was read. The transport may still be reading
// when an answer is there.
type body struct {
	io.Reader
	want int64
	read atomic.Int64
}

// Read reads on. That it cannot is for this box to tell of.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read.Add(int64(n))
	if err != nil && !errors.Is(err, io.EOF) {
		err = ours(err)
	}
	return n, err
}

func (b *body) whole() bool { return b.read.Load() == b.want }

// base64Sum is the object's sha256 as HTTP has it.
func (o *object) base64Sum() string {
	sum, err := hex.DecodeString(o.sum)
	if err != nil {
		panic("uploader: a sum that is no hexadecimal: " + err.Error()) // sidecars are checked
	}
	return base64.StdEncoding.EncodeToString(sum)
}

// mediaType is the object's, fit for a header.
func (o *object) mediaType() string {
	if _, _, err := mime.ParseMediaType(o.media); err != nil {
		return "application/octet-stream"
	}
	return o.media
}

// sidecarMedia is the media type of sidecars.
const sidecarMedia = "application/json"

// word is a receiver's word that it has an object.
type word struct {
	status int
	tag    string
	proof
}

// proof is what a word rests on.
type proof struct {
	by     sidecar.Proof
	digest string // that the receiver told, the object's; "" where it told none
	early  bool   // it had the object already
}

func (p proof) String() string {
	if p.early {
		return "it has it already: " + p.by.Words()
	}
	return p.by.Words()
}

// shown is what a receiver tells of an object that it has.
type shown struct {
	bytes  int64  // -1 where it does not say
	digest string // sha256 in hexadecimal; "" where it does not say
}

// errDiffers says that the receiver has something else under an object's name.
var errDiffers = errors.New("the receiver has something else")

// differs is an error where what is shown is not the object.
func (o *object) differs(s shown) error {
	switch {
	case s.digest != "" && s.digest != o.sum:
		return fmt.Errorf("%w as %s: its sha256 is %s, ours %s", errDiffers, o.name, s.digest, o.sum)
	case s.bytes >= 0 && s.bytes != o.bytes:
		return fmt.Errorf("%w as %s: %d bytes, ours has %d", errDiffers, o.name, s.bytes, o.bytes)
	}
	return nil
}

// witness is how a receiver can be asked about an object.
type witness struct {
	head func(context.Context) (shown, error)
	get  func(context.Context) (io.ReadCloser, error)
}

// prove tests that a receiver has the object, at least as well as is wanted, and
// says how it is known. answered is what it said by itself. Nothing that it
// shows may differ, whatever is wanted.
func (o *object) prove(ctx context.Context, want Proof, answered shown, ask witness) (proof, error) {
	if err := o.differs(answered); err != nil {
		return proof{}, err
	}
	switch {
	case want == ByContent:
		return proof{by: sidecar.ByContent, digest: answered.digest}, o.compare(ctx, ask)
	case answered.digest != "":
		return proof{by: sidecar.ByDigest, digest: answered.digest}, nil
	case want == ByStatus:
		return proof{by: sidecar.ByStatus}, nil
	}
	seen, err := ask.head(ctx)
	if err == nil {
		err = o.differs(seen)
	}
	switch {
	case err != nil:
		return proof{}, fmt.Errorf("no proof that it arrived: %w", err)
	case seen.digest != "":
		return proof{by: sidecar.ByDigest, digest: seen.digest}, nil
	case want == ByDigest:
		return proof{}, fmt.Errorf("no proof that %s arrived: the receiver tells no sha256, which receipt = %q wants", o.name, ByDigest)
	case seen.bytes < 0:
		return proof{}, fmt.Errorf("no proof that %s arrived: the receiver tells no length, which receipt = %q wants", o.name, ByHead)
	}
	return proof{by: sidecar.ByHead}, nil
}

// alreadyThere deals with the answer that there is such an object, which is so
// after an attempt whose answer was lost: then it is the same. Only where it is
// another one has the receiver refused ours.
func (o *object) alreadyThere(ctx context.Context, want Proof, refusal error, ask witness) (proof, error) {
	if want == ByStatus {
		want = ByHead
	}
	how, err := o.prove(ctx, want, shown{-1, ""}, ask)
	switch {
	case errors.Is(err, errDiffers):
		return proof{}, fmt.Errorf("%w; and %w", refusal, err)
	case err != nil:
		return proof{}, fmt.Errorf("%s: %w", refusal.Error(), err)
	}
	how.early = true
	return how, nil
}

// compare reads the object back.
func (o *object) compare(ctx context.Context, ask witness) error {
	in, err := ask.get(ctx)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	defer func() { _ = in.Close() }() // it is only read
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(in, o.bytes+1))
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return o.differs(shown{n, hex.EncodeToString(sum.Sum(nil))})
}

// receiver is where files go. send may be called again and again, by several
// goroutines, for a file that an earlier attempt has brought there in part or
// whole, also before a restart. Its error is a *failure, an *ownError, or one of
// the network.
type receiver interface {
	send(ctx context.Context, p *parcel) (word, error)
}

// parcel is a file on its way.
type parcel struct {
	file   object
	note   object // its sidecar
	upload sidecar.Upload
	keep   func(sidecar.Upload) error // makes upload durable
}
