package boxtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Mosquitto is an MQTT broker, Debian's mosquitto, with settings of mosquitto.conf(5).
type Mosquitto struct {
	Address string // HOST:PORT
	t       testing.TB
	conf    string
	cmd     *exec.Cmd
	log     *tail
	subs    int
}

// StartMosquitto runs a broker. Settings come after its listener; nothing is kept on disk.
func StartMosquitto(t testing.TB, settings string) *Mosquitto {
	t.Helper()
	m := &Mosquitto{Address: freeAddress(t), t: t, conf: filepath.Join(t.TempDir(), "mosquitto.conf"), log: &tail{}}
	_, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		t.Fatal(err)
	}
	text := "log_type all\nlistener " + port + " 127.0.0.1\n" + settings + "\n"
	if !strings.Contains(settings, "allow_anonymous") {
		text += "allow_anonymous true\n"
	}
	if os.Geteuid() == 0 {
		text = "user root\n" + text
	}
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Start()
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("mosquitto wrote:\n%s", m.log)
		}
	})
	return m
}

// Start runs it again after Kill, with nothing of what it knew.
func (m *Mosquitto) Start() {
	m.t.Helper()
	m.cmd = exec.Command(mosquittoProgram(m.t), "-c", m.conf)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cmd.Stderr, m.cmd.Stdout = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	Poll(m.t, "mosquitto", func() bool {
		c, err := net.Dial("tcp", m.Address)
		if err == nil {
			err = c.Close()
		}
		return err == nil
	})
}

// Signal stops it for a while (SIGSTOP), or lets it go on.
func (m *Mosquitto) Signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// Kill ends it at once.
func (m *Mosquitto) Kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // killed
}

func mosquittoProgram(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} {
		if program, err := exec.LookPath(name); err == nil {
			return program
		}
	}
	t.Skip("mosquitto is not installed: scripts/setup --test gets it")
	return ""
}

// MosquittoSub is a running mosquitto_sub.
type MosquittoSub struct {
	mu   sync.Mutex
	text strings.Builder
}

// Subscribe runs mosquitto_sub, and returns when it has subscribed to a topic filter. Each message
// is a line in that format (mosquitto_sub(1), "Output format").
func (m *Mosquitto) Subscribe(filter, format string, args ...string) *MosquittoSub {
	m.t.Helper()
	program, err := exec.LookPath("mosquitto_sub")
	if err != nil {
		m.t.Skip("mosquitto_sub is not installed: scripts/setup --test gets it")
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.subs++
	id := fmt.Sprintf("sub%d", m.subs)
	args = append([]string{"-i", id, "-V", "mqttv5", "-h", host, "-p", port, "-t", filter, "-F", format}, args...)
	s := &MosquittoSub{}
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout = s
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	Poll(m.t, "mosquitto_sub", func() bool { return strings.Contains(m.log.String(), "Sending SUBACK to "+id+"\n") })
	return s
}

func (s *MosquittoSub) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(text)
}

// Lines are the messages so far.
func (s *MosquittoSub) Lines() (lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.text.String()) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Retained is the message that the broker keeps for a topic; "" is none.
func (m *Mosquitto) Retained(topic string) string {
	m.t.Helper()
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		m.t.Fatal(err)
	}
	text, err := exec.Command("mosquitto_sub", "-h", host, "-p", port, "-t", topic, "-N", "--retained-only", "-C", "1", "-W", "1").Output()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 27) { // 27: nothing came in time
		m.t.Fatalf("mosquitto_sub -t %q = %v", topic, err)
	}
	return string(text)
}
