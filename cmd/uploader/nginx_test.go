package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/perch-edge/perch/internal/boxtest"
	"github.com/perch-edge/perch/internal/sidecar"
	"github.com/perch-edge/perch/internal/spool"
)

// nginx starts Debian's nginx with WebDAV over TLS. It returns its folder, and
// the settings that lead there.
func nginx(t *testing.T) (folder, keys string) {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed: scripts/setup --test gets it")
		}
	}
	ca, dir := newAuthority(t), t.TempDir()
	der, key := ca.sign(t, &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // nginx cannot say which port it took
		t.Fatal(err)
	}
	folder = filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(folder, "box"), 0o755); err != nil {
		t.Fatal(err)
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	conf := fmt.Sprintf(`%s
daemon off; master_process off; pid %s/pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %s/body; proxy_temp_path %s/t1; fastcgi_temp_path %s/t2; uwsgi_temp_path %s/t3; scgi_temp_path %s/t4;
  server {
    listen %s ssl; ssl_certificate %s; ssl_certificate_key %s;
    client_max_body_size 3m;
    root %s; location / { dav_methods PUT; }
  }
}
`, user, dir, dir, dir, dir, dir, dir, address, writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", private), folder)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-p", dir, "-c", filepath.Join(dir, "conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log := &strings.Builder{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("nginx wrote:\n%s", log)
		}
	})
	boxtest.Poll(t, "nginx", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			err = c.Close()
		}
		return err == nil
	})
	return folder, fmt.Sprintf("to = %q\nca_file = %q\nretry_most = \"1s\"\n", "https://"+address+"/box", writeCert(t, ca.cert))
}

// A plain web server with WebDAV is a receiver: it tells a length, and no sha256.
func TestNginx(t *testing.T) {
	t.Parallel()
	for _, receipt := range []string{"head", "content"} {
		t.Run(receipt, func(t *testing.T) {
			t.Parallel()
			folder, keys := nginx(t)
			b := boxtest.New(t, fleet(keys+fmt.Sprintf("receipt = %q\nattempts = 2", receipt)))
			s := newShop(t, b.Dir+"/store")
			sides := []*sidecar.Sidecar{s.put(".csv", "a,b\n"), s.put(".mp4", noise(2<<20)), s.put(".jpg", "")}
			large := s.put(".mp4", noise(4<<20)) // more than it takes
			p := b.Start("uploader", "send")
			s.wait(spool.Sent, 3)
			s.wait(spool.Rejected, 1)
			p.Stop()
			for _, side := range sides {
				if text, err := os.ReadFile(filepath.Join(folder, "box", side.Name)); err != nil || hashOf(text) != side.SHA256 {
					t.Errorf("nginx has %d bytes of %s (%v); want it whole", len(text), side.Name, err)
				}
				if _, err := os.Stat(filepath.Join(folder, "box", string(side.ID)+".json")); err != nil {
					t.Error(err)
				}
			}
			if list, err := os.ReadDir(filepath.Join(folder, "box")); err != nil || len(list) != 6 {
				t.Errorf("nginx has %d files (%v); want three and their sidecars", len(list), err)
			}
			got := s.sidecarIn(spool.Rejected, large.ID)
			if reason := got.History[len(got.History)-1].Reason; !strings.Contains(reason, "413") {
				t.Errorf("reason %q; want the 413 of a file that is too large", reason)
			}
		})
	}
}
