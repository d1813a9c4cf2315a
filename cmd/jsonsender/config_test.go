package main

import (
	"os"
	"strings"
	"testing"

	"github.com/perch-edge/perch/pkg/topology"
)

// configOf reads a worker's table as a topology has it.
func configOf(t *testing.T, lines string) error {
	t.Helper()
	top, err := topology.ByHand(topology.Worker, "home", "jsonsender", []string{"air"}, strings.Split(strings.TrimSpace(lines), "\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	return top.Entry("home").BindOwn(&cfg)
}

func TestSettings(t *testing.T) {
	for _, good := range []string{
		`to = "tcp://127.0.0.1:9000"`,
		`to = "unix:/run/perch/out.sock"`,
		`to = "https://example.org/in"`,
		`to = "http://localhost:8086/write"`,
		`to = "mqtts://broker.example.org"`,
		"to = \"tcp://[::1]:9000\"\nspool_after = \"0s\"",
	} {
		if err := configOf(t, good); err != nil {
			t.Errorf("%s = %v; want it accepted", good, err)
		}
	}
	for given, want := range map[string]string{
		`format = "plain"`:                                          "to: no receiver: want tcp://",
		`to = "htps://example.org"`:                                 `did you mean "https"`,
		`to = "http://example.org/in"`:                              "want https://",
		`to = "mqtt://192.168.1.5:1883"`:                            "want mqtts://",
		`to = "https://u:p@example.org"`:                            "a password in an address can be read by everybody",
		`to = "tcp://127.0.0.1"`:                                    "want tcp://HOST:PORT",
		`to = "https://example.org:99999/in"`:                       "want 1 to 65535",
		"to = \"mqtt://127.0.0.1\"\ntopic_prefix = \"a/#\"":         `topic_prefix = "a/#": want a topic without`,
		"to = \"nats://127.0.0.1\"\ntopic_prefix = \"a b\"":         "want words of",
		"to = \"tcp://127.0.0.1:1\"\nuser = \"me\"":                 "not for tcp, tls",
		`to = "unix:relative.sock"`:                                 "want unix:/PATH",
		`to = "zmq+tcp://example.org:1"`:                            "curve_key_file",
		"to = \"tcp://127.0.0.1:1\"\nkinds = [\"readings\"]":        `did you mean "reading"`,
		"to = \"tcp://127.0.0.1:1\"\nspol_after = \"1s\"":           `did you mean "spool_after"`,
		"to = \"tcp://127.0.0.1:1\"\nspool_most = \"1MB\"":          "at least",
		"to = \"tcp://127.0.0.1:1\"\ntoken_file = \"/nonexistent\"": "no such file",
		"to = \"tcp://127.0.0.1:1\"\nclient_key = \"/nonexistent\"": "go together",
		"to = \"tcp://127.0.0.1:1\"\ngzip = true":                   "only for http and https",
		"to = \"mqtt://127.0.0.1:1\"\nack = true":                   "only for tcp, tls",
		"to = \"tcp://127.0.0.1:1\"\npicture = \"p\"":               "only for format homeassistant",
		"to = \"tcp://127.0.0.1:1\"\nattempts = 0":                  "want 1 to 100",
		"to = \"tcp://127.0.0.1:1\"\nevery = \"10ms\"":              `want "1s"`,
	} {
		if err := configOf(t, given); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s = %v; want an error with %q", given, err, want)
		}
	}
}

// What refers to other entries is checked against the topology.
func TestSettingsInATopology(t *testing.T) {
	const home = `program = "jsonsender"
source = "air"
to = "mqtt://127.0.0.1"
format = "homeassistant"
`
	file := t.TempDir() + "/box.toml"
	text := "[sensor.air]\nprogram = \"sensor-bme280\"\n[sensor.air.stream.environment]\n[worker.a]\n" + home +
		"picture = \"aiir\"\n[worker.b]\n" + home + "streams = [\"ar.environment\"]\n[worker.c]\n" + home + "discovery_prefix = \"other\"\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	top, err := topology.Load(file, topology.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"a": {`format: "b" announces this box to the same broker`, `did you mean "air"`},
		"b": {`"a" announces`, `"ar" is not among the sources`},
		"c": nil,
	} {
		cfg := DefaultConfig()
		if err := top.Entry(name).BindOwn(&cfg); err != nil {
			t.Fatal(err)
		}
		err := cfg.ValidateIn(top, top.Entry(name))
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("worker %s = %v; want an error with %q", name, err, part)
			}
		}
		if want == nil && err != nil {
			t.Errorf("worker %s = %v; want it accepted", name, err)
		}
	}
}
