package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// place is what a server has: names and bytes.
type place func() map[string][]byte

// nginx starts a web server with DAV and TLS, and returns an uploader's keys for
// it.
func nginx(t *testing.T) (keys string, files place) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("no nginx: sudo apt install nginx-light")
	}
	dir, err := os.MkdirTemp("", "perch-nginx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	certify(t, dir)
	port := freePort(t)
	config := strings.NewReplacer("$DIR", dir, "$PORT", fmt.Sprint(port)).Replace(`
daemon off; master_process off; pid $DIR/pid; error_log $DIR/error.log;
events {}
http {
	access_log off; client_body_temp_path $DIR/body; client_max_body_size 100m;
	proxy_temp_path $DIR/p; fastcgi_temp_path $DIR/f; uwsgi_temp_path $DIR/u; scgi_temp_path $DIR/s;
	server {
		listen 127.0.0.1:$PORT ssl; ssl_certificate $DIR/cert.pem; ssl_certificate_key $DIR/key.pem;
		location / { root $DIR/www; dav_methods PUT; create_full_put_path on; }
	}
}
`)
	if err := os.WriteFile(dir+"/nginx.conf", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(program, "-c", dir+"/nginx.conf", "-p", dir)
	server.Stderr = os.Stderr
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Process.Kill(); server.Wait() })
	awaitPort(t, port)
	return fmt.Sprintf("to = \"https://127.0.0.1:%d/box\"\nca_file = %q", port, dir+"/cert.pem"), func() map[string][]byte {
		return filesIn(t, dir+"/www/box")
	}
}

func awaitPort(t *testing.T, port int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody listens at port %d: %v", port, err)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at another process
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
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

// certify makes cert.pem and key.pem for 127.0.0.1.
func certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	cert, err := x509.CreateCertificate(rand.Reader, form, form, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
