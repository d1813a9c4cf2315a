package e2e

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/perch-edge/perch/internal/boxtest"
)

// place is what a server has: names and bytes.
type place func() map[string][]byte

// nginx starts a web server with DAV and TLS, and returns an uploader's keys for
// it.
func nginx(t *testing.T) (keys string, files place) {
	t.Helper()
	server := boxtest.StartNginx(t, "100m")
	return server.Keys, func() map[string][]byte { return filesIn(t, server.Folder) }
}

func filesIn(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = text
	}
	return found
}

// s3 starts an S3 server in this process, and returns an uploader's keys for it.
func s3(t *testing.T) (keys string, files place) {
	t.Helper()
	const bucket = "clips"
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	secret := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(secret, []byte("access_key=box\nsecret_key=secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("to = \"s3://%s/box?endpoint=%s\"\ntoken_file = %q", bucket, server.URL, secret), func() map[string][]byte {
		return objectsIn(t, backend, bucket)
	}
}

func objectsIn(t *testing.T, backend gofakes3.Backend, bucket string) map[string][]byte {
	t.Helper()
	list, err := backend.ListBucket(bucket, &gofakes3.Prefix{}, gofakes3.ListBucketPage{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, o := range list.Contents {
		got, err := backend.GetObject(bucket, o.Key, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(got.Contents)
		if err != nil {
			t.Fatal(err)
		}
		found[path.Base(o.Key)] = text
	}
	return found
}
