package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/perch-edge/perch/internal/uplink"
)

// tusChunk is how much is sent in one request.
const tusChunk = 8 << 20

// tus is a receiver that speaks tus 1.0: an upload that was interrupted goes on
// where it was. Where it is kept there is noted in the sidecar.
type tus struct {
	*client
	to    Target
	proof Proof
}

func (t *tus) send(ctx context.Context, p *parcel) (word, error) {
	up := p.upload
	keep := func() error { return p.keep(up) }
	said, err := t.bring(ctx, &p.file, &up.URL, keep)
	if err != nil {
		return word{}, err
	}
	if _, err := t.bring(ctx, &p.note, &up.SidecarURL, keep); err != nil {
		return word{}, fmt.Errorf("sidecar: %w", err)
	}
	said.tag = up.URL
	return said, nil
}

// bring goes on with an upload, or begins one; at is its address.
func (t *tus) bring(ctx context.Context, o *object, at *string, keep func() error) (word, error) {
	offset, err := t.offset(ctx, *at, o)
	if errors.Is(err, errNoUpload) {
		if *at, err = t.create(ctx, o); err == nil {
			err = keep() // before any byte: the next run must find it
		}
	}
	if err != nil {
		return word{}, err
	}
	status := http.StatusCreated
	for offset < o.bytes {
		n := min(o.bytes-offset, tusChunk)
		if status, err = t.patch(ctx, *at, o, offset, n); err != nil {
			return word{}, err
		}
		offset += n
	}
	proof, err := o.prove(ctx, t.proof, shown{-1, ""}, witness{
		head: func(ctx context.Context) (shown, error) {
			there, err := t.offset(ctx, *at, o)
			return shown{there, ""}, err
		},
		get: func(ctx context.Context) (io.ReadCloser, error) { return t.get(ctx, *at) },
	})
	return word{status: status, proof: proof}, err
}

// errNoUpload says that there is none to go on with.
var errNoUpload = errors.New("the receiver has no such upload")

// offset is how much of an object the receiver has.
func (t *tus) offset(ctx context.Context, at string, o *object) (int64, error) {
	if at == "" {
		return 0, errNoUpload
	}
	if u, err := url.Parse(at); err != nil || !t.to.isSameServer(u) {
		return 0, errNoUpload // of another receiver
	}
	a, err := t.do(ctx, http.MethodHead, at, nil, t.header())
	if a != nil && (a.status == http.StatusNotFound || a.status == http.StatusGone) {
		return 0, errNoUpload // it has expired
	}
	if err != nil {
		return 0, err
	}
	n, err := tusNumber(a, "Upload-Offset", o.bytes)
	if err != nil {
		return 0, err
	}
	if length, err := strconv.ParseInt(a.header.Get("Upload-Length"), 10, 64); err != nil || length != o.bytes {
		return 0, errNoUpload // of an older sidecar
	}
	return n, nil
}

// create begins an upload and returns its address.
func (t *tus) create(ctx context.Context, o *object) (string, error) {
	h := t.header()
	h.Set("Upload-Length", strconv.FormatInt(o.bytes, 10))
	h.Set("Idempotency-Key", o.key)
	var pairs []string
	for _, p := range [][2]string{{"filename", o.name}, {"filetype", o.mediaType()}, {"id", o.key}, {"sha256", o.sum}} {
		pairs = append(pairs, p[0]+" "+base64.StdEncoding.EncodeToString([]byte(p[1])))
	}
	h.Set("Upload-Metadata", strings.Join(pairs, ","))
	a, err := t.do(ctx, http.MethodPost, t.to.url.String(), nil, h)
	if err != nil {
		return "", err
	}
	location := a.header.Get("Location")
	at, err := t.to.url.Parse(location)
	switch {
	case a.status != http.StatusCreated || location == "" || err != nil:
		return "", fmt.Errorf("the receiver answered %d and no address for the upload: it is no tus server", a.status)
	case !t.to.isSameServer(at):
		return "", fmt.Errorf("the receiver wants the upload elsewhere (%s), where nothing is sent", uplink.OneLine(location))
	}
	return at.String(), nil
}

// patch sends the next n bytes.
func (t *tus) patch(ctx context.Context, at string, o *object, offset, n int64) (int, error) {
	h := t.header()
	h.Set("Upload-Offset", strconv.FormatInt(offset, 10))
	h.Set("Content-Type", "application/offset+octet-stream")
	a, err := t.do(ctx, http.MethodPatch, at, o.body(offset, n), h)
	if err != nil {
		if f := failureOf(err); a != nil && f.verdict == uplink.Denied && (a.status == http.StatusNotFound || a.status == http.StatusGone) {
			f.verdict = uplink.Unavailable // the upload has expired: the next attempt begins anew
			err = f
		}
		return 0, err
	}
	now, err := tusNumber(a, "Upload-Offset", o.bytes)
	if err == nil && now != offset+n {
		err = fmt.Errorf("the receiver has %d bytes of %s after %d were sent", now, o.name, offset+n)
	}
	return a.status, err
}

func (t *tus) header() http.Header { return http.Header{"Tus-Resumable": {"1.0.0"}} }

func tusNumber(a *answer, name string, most int64) (int64, error) {
	n, err := strconv.ParseInt(a.header.Get(name), 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("the receiver answered %d with %s %s: want 0 to %d, or it is no tus server", a.status, name, uplink.OneLine(a.header.Get(name)), most)
	}
	return n, nil
}
