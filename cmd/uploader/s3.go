package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/perch-edge/perch/internal/uplink"
)

// mostS3 is the most that S3 takes in one request. All of it in one keeps the
// whole object's sha256 with it.
const mostS3 = 5 << 30

// bucket is a receiver that speaks S3.
type bucket struct {
	api   *minio.Client
	to    Target
	proof Proof
}

func newBucket(cfg *Config, transport http.RoundTripper) (*bucket, error) {
	api, err := minio.New(cfg.To.url.Host, &minio.Options{Creds: credentials.New(&provider{cfg.TokenFile}), Secure: cfg.To.url.Scheme == "https",
		Region: cfg.To.region, Transport: &hearing{transport}, MaxRetries: 1,
		TrailingHeaders: true}) // without it the library refuses checksums; ours goes ahead, in the header
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.To, err)
	}
	return &bucket{api, cfg.To, cfg.proof()}, nil
}

// provider reads the keys for each request.
type provider struct{ file string }

// RetrieveWithCredContext reads the keys.
func (p *provider) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return p.Retrieve()
}

// Retrieve reads the keys.
func (p *provider) Retrieve() (credentials.Value, error) {
	k, err := readKeys(p.file)
	if err != nil {
		return credentials.Value{}, &failure{verdict: uplink.Denied, err: fmt.Errorf("token_file: %w", err)}
	}
	return credentials.Value{AccessKeyID: k.access, SecretAccessKey: k.secret, SessionToken: k.session, SignerType: credentials.SignatureV4}, nil
}

// IsExpired says that they are to be read again.
func (p *provider) IsExpired() bool { return true }

func (b *bucket) send(ctx context.Context, p *parcel) (word, error) {
	said, err := b.put(ctx, &p.file)
	if err != nil {
		return word{}, err
	}
	if _, err := b.put(ctx, &p.note); err != nil {
		return word{}, fmt.Errorf("sidecar: %w", err)
	}
	return said, nil
}

func (b *bucket) put(ctx context.Context, o *object) (word, error) {
	if o.bytes > mostS3 {
		return word{}, fail(uplink.Refused, "%s has %d bytes: S3 takes at most %d in one request", o.name, o.bytes, int64(mostS3))
	}
	opts := minio.PutObjectOptions{ContentType: o.mediaType(), DisableMultipart: true, UserMetadata: map[string]string{
		"x-amz-checksum-sha256": o.base64Sum(), "sha256": o.sum, "id": o.key}}
	if o.once {
		opts.SetMatchETagExcept("*")
	}
	content := o.body(0, o.bytes)
	heard := &http.Header{}
	info, err := b.api.PutObject(withEar(ctx, heard), b.to.bucket, b.to.prefix+o.name, content, o.bytes, opts)
	if err == nil && !content.whole() {
		err = fmt.Errorf("the receiver answered after %d of %d bytes", content.read.Load(), o.bytes)
	}
	said := minio.ErrorResponse{}
	if errors.As(err, &said) && (said.StatusCode == http.StatusPreconditionFailed || said.StatusCode == http.StatusConflict) {
		proof, err := o.alreadyThere(ctx, b.proof, b.failure(err, *heard), b.witness(o))
		return word{status: said.StatusCode, proof: proof}, err
	}
	if err != nil {
		return word{}, b.failure(err, *heard)
	}
	proof, err := o.prove(ctx, b.proof, shown{-1, hexSum(info.ChecksumSHA256)}, b.witness(o))
	return word{http.StatusOK, info.ETag, proof}, err
}

func (b *bucket) witness(o *object) witness {
	key := b.to.prefix + o.name
	return witness{
		head: func(ctx context.Context) (shown, error) {
			info, err := b.api.StatObject(ctx, b.to.bucket, key, minio.StatObjectOptions{Checksum: true})
			return shown{info.Size, hexSum(info.ChecksumSHA256)}, err
		},
		get: func(ctx context.Context) (io.ReadCloser, error) {
			return b.api.GetObject(ctx, b.to.bucket, key, minio.GetObjectOptions{})
		},
	}
}

// failure says what an error of the library means.
func (b *bucket) failure(err error, heard http.Header) error {
	said := minio.ErrorResponse{}
	if !errors.As(err, &said) || len(heard) == 0 { // the library makes such errors of its own, too
		return err
	}
	what := fmt.Errorf("the receiver answered %d %s%s", said.StatusCode, http.StatusText(said.StatusCode), uplink.Advice(said.StatusCode))
	if !uplink.IsPage(heard) {
		what = fmt.Errorf("%w: %s, %s", what, uplink.OneLine(said.Code), uplink.OneLine(said.Message))
	}
	f := &failure{verdict: uplink.Judge(said.StatusCode), after: uplink.RetryAfter(heard, time.Now()), err: what}
	switch said.Code { // those whose status says less
	case "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "OperationAborted":
		f.verdict = uplink.Unavailable
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed", "InvalidBucketName", "InvalidRegion":
		f.verdict = uplink.Denied
	}
	return f
}

// hearing lets callers see the header of an answer, which the library keeps to
// itself.
type hearing struct{ http.RoundTripper }

type ear struct{}

func withEar(ctx context.Context, h *http.Header) context.Context {
	return context.WithValue(ctx, ear{}, h)
}

// RoundTrip notes the header down where a caller asked for it.
func (r *hearing) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := r.RoundTripper.RoundTrip(req)
	if h, ok := req.Context().Value(ear{}).(*http.Header); ok && err == nil {
		*h = res.Header
	}
	return res, err
}
