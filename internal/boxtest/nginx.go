package boxtest

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Nginx is a running nginx, the receiver of docs/RECEIVERS.md.
type Nginx struct {
	Keys   string // an uploader's settings that lead there
	Folder string // in which the files are
	Token  string
}

// StartNginx runs Debian's nginx with the configuration that docs/RECEIVERS.md
// gives, but for its paths and port. It takes bodies of that many bytes, such as
// "3m".
func StartNginx(t testing.TB, maxBody string) *Nginx {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed: scripts/setup --test gets it")
		}
	}
	dir, address, ca := t.TempDir(), freeAddress(t), NewAuthority(t)
	cert, key := ca.SignFile(t, &x509.Certificate{IPAddresses: Loopback()})
	site := Documented(t, "RECEIVERS.md", "nginx")[0]
	for old, now := range map[string]string{"listen 443 ssl": "listen " + address + " ssl", "/etc/ssl/collect.pem": cert, "/etc/ssl/private/collect.key": key,
		"client_max_body_size 1g": "client_max_body_size " + maxBody, "/srv/perch": dir} {
		if !strings.Contains(site, old) {
			t.Fatalf("docs/RECEIVERS.md gives a configuration of nginx without %q", old)
		}
		site = strings.ReplaceAll(site, old, now)
	}
	token := regexp.MustCompile(`"Bearer (\S+)" airpi-01;`).FindStringSubmatch(site)
	if token == nil {
		t.Fatal("docs/RECEIVERS.md gives a configuration of nginx without the token of airpi-01")
	}
	n := &Nginx{Folder: filepath.Join(dir, "files", "airpi-01"), Token: token[1]}
	secret := filepath.Join(dir, "token")
	if err := errors.Join(os.MkdirAll(n.Folder, 0o755), os.Mkdir(filepath.Join(dir, "incoming"), 0o755), os.WriteFile(secret, []byte(n.Token), 0o600)); err != nil {
		t.Fatal(err)
	}
	serveNginx(t, program, dir, address, site)
	n.Keys = fmt.Sprintf("to = %q\nca_file = %q\ntoken_file = %q\n", "https://"+address+"/airpi-01", WritePEM(t, "CERTIFICATE", ca.Cert.Raw), secret)
	return n
}

// serveNginx puts about a site what Debian's package has about it, and no more of
// the machine than dir.
func serveNginx(t testing.TB, program, dir, address, site string) {
	t.Helper()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	text := strings.ReplaceAll(user+`
daemon off; master_process off; pid DIR/pid; error_log stderr;
events { worker_connections 64; }
http {
access_log off; proxy_temp_path DIR/t1; fastcgi_temp_path DIR/t2; uwsgi_temp_path DIR/t3; scgi_temp_path DIR/t4;
`, "DIR", dir) + site + "}\n"
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-p", dir, "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log := &tail{}
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
	Poll(t, "nginx", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			err = c.Close()
		}
		return err == nil
	})
}

// freeAddress is one that nobody listens at: nginx cannot say which it took.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// Documented lists the blocks of a language in a file of docs/.
func Documented(t testing.TB, name, language string) (blocks []string) {
	t.Helper()
	dir := "."
	for _, err := os.Stat("go.mod"); err != nil; _, err = os.Stat(filepath.Join(dir, "go.mod")) {
		if dir = filepath.Join("..", dir); len(dir) > 30 {
			t.Fatal("this is no folder of the repository")
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("docs/%s has no block of %s", name, language)
	}
	return blocks
}
