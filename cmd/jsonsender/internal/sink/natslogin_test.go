package sink

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/perch-edge/perch/internal/boxtest"
)

func TestNATSToken(t *testing.T) {
	tests := map[string]string{
		"box-1_A": "box-1_A", "a.b": "a%2Eb", "a b": "a%20b", "*": "%2A", ">": "%3E", "a%2Eb": "a%252Eb", "Küche": "K%C3%BCche", "$JS": "%24JS", ".": "%2E",
	}
	for name, want := range tests {
		if got := NATSToken(name); got != want {
			t.Errorf("NATSToken(%q) = %q; want %q", name, got, want)
		}
	}
	h := reading(t, "porch.left > *", "a", 0).Record.Header
	if got, want := natsSubject("site.perch", &h), "site.perch.porch%2Eleft%20%3E%20%2A.air.a"; got != want {
		t.Errorf("natsSubject() = %q; want %q", got, want)
	}
}

func FuzzNATSToken(f *testing.F) {
	f.Add("a.b", "a%2Eb")
	f.Fuzz(func(t *testing.T, a, b string) {
		if got, other := NATSToken(a), NATSToken(b); (got == other) != (a == b) {
			t.Errorf("NATSToken(%q) = %q and NATSToken(%q) = %q; want two tokens for two names", a, got, b, other)
		}
	})
}

func TestNATSServers(t *testing.T) {
	tests := []struct {
		address string
		want    []string
		local   bool
	}{
		{"127.0.0.1", []string{"nats://127.0.0.1:4222"}, true},
		{"localhost:1,127.0.0.1:2", []string{"nats://localhost:1", "nats://127.0.0.1:2"}, true},
		{"[::1]:4222", []string{"nats://[::1]:4222"}, true},
		{"a.example.org,b.example.org:5222", []string{"nats://a.example.org:4222", "nats://b.example.org:5222"}, false},
		{"127.0.0.1,b.example.org", []string{"nats://127.0.0.1:4222", "nats://b.example.org:4222"}, false},
		{"", nil, false}, {"a,,b", nil, false}, {"a/path", nil, false}, {"a?tls=1", nil, false},
	}
	for _, test := range tests {
		o, _ := natsOptions(t, test.address)
		got, local, err := natsServers(o.To)
		if diff := cmp.Diff(test.want, got); diff != "" || local != test.local || (err == nil) != (test.want != nil) {
			t.Errorf("natsServers(nats://%s) = %q, %t, %v; want %q, %t", test.address, got, local, err, test.want, test.local)
		}
	}
	for _, prefix := range []string{"", ".", "a.", "a..b", "a b", "$JS", "a.>", "*"} {
		o, _ := natsOptions(t, "127.0.0.1")
		o.Prefix = prefix
		if _, err := NewNATS(o); err == nil {
			t.Errorf("NewNATS() with prefix %q = _, nil; want an error", prefix)
		}
	}
}

func secret(text string) func() (string, error) { return func() (string, error) { return text, nil } }

func TestNATSLogins(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	public, _ := user.PublicKey()
	tests := []struct {
		name   string
		server func(*server.Options)
		admin  nats.Option
		user   string
		secret string
	}{
		{"password", func(o *server.Options) { o.Username, o.Password = "box", "pass word" }, nats.UserInfo("box", "pass word"), "box", "pass word\n"},
		{"token", func(o *server.Options) { o.Authorization = "SUPERSECRET" }, nats.Token("SUPERSECRET"), "", "SUPERSECRET\n"},
		{"nkey", func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} }, nats.Nkey(public, user.Sign), "", string(seed) + "\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv := startNATS(t, test.server)
			stream := natsStream(t, srv.admin(t, test.admin))
			o, _ := natsOptions(t, srv.address())
			o.User, o.Token = test.user, secret(test.secret)
			deliver(t, newNATS(t, o), readings(t, "a", 0, 2))
			wantIDs(t, stream, readings(t, "a", 0, 2))
		})
	}
}

// Credentials are a JWT and the seed of its key, as nsc writes them.
func TestNATSCredentials(t *testing.T) {
	operator, _ := nkeys.CreateOperator()
	operatorKey, _ := operator.PublicKey()
	resolver := &server.MemAccResolver{}
	account := func(jetStream bool) (nkeys.KeyPair, string) {
		pair, _ := nkeys.CreateAccount()
		key, _ := pair.PublicKey()
		claims := jwt.NewAccountClaims(key)
		if jetStream {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		text, err := claims.Encode(operator)
		if err == nil {
			err = resolver.Store(key, text)
		}
		if err != nil {
			t.Fatal(err)
		}
		return pair, key
	}
	fleet, _ := account(true)
	_, system := account(false)
	trusted := jwt.NewOperatorClaims(operatorKey)
	trusted.SystemAccount = system
	srv := startNATS(t, func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{trusted}, resolver, system
	})
	creds := func(expires time.Time) string {
		user, _ := nkeys.CreateUser()
		key, _ := user.PublicKey()
		claims := jwt.NewUserClaims(key)
		claims.Expires = expires.Unix()
		text, err := claims.Encode(fleet)
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := user.Seed()
		file, err := jwt.FormatUserConfig(text, seed)
		if err != nil {
			t.Fatal(err)
		}
		return string(file)
	}
	good := creds(time.Now().Add(time.Hour))
	stream := natsStream(t, srv.admin(t, nats.UserCredentialBytes([]byte(good))))
	o, _ := natsOptions(t, srv.address())
	o.Token = secret(good)
	deliver(t, newNATS(t, o), readings(t, "a", 0, 2))
	wantIDs(t, stream, readings(t, "a", 0, 2))
	o.Token = secret(creds(time.Now().Add(-time.Hour)))
	problemOf(t, newNATS(t, o), readings(t, "a", 3, 3), true, "Authorization Violation")
	o.Token = secret(good[:len(good)/2])
	problemOf(t, newNATS(t, o), readings(t, "a", 3, 3), true, "want the whole file")
}

func TestNATSTLS(t *testing.T) {
	ca := boxtest.NewAuthority(t)
	der, key := ca.Sign(t, &x509.Certificate{IPAddresses: boxtest.Loopback(), DNSNames: []string{"nats.test"}})
	srv := startNATS(t, func(o *server.Options) {
		o.TLSConfig, o.TLS, o.TLSTimeout = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, true, 10
	})
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	stream := natsStream(t, srv.admin(t, nats.Secure(&tls.Config{RootCAs: roots})))
	trust := func(pool *x509.CertPool) func() (*tls.Config, error) {
		return func() (*tls.Config, error) { return &tls.Config{RootCAs: pool}, nil }
	}
	for i, host := range []string{"127.0.0.1", "nats.test"} {
		o, _ := natsOptions(t, srv.address())
		o.To.Host = host + srv.address()[len("127.0.0.1"):]
		o.Dial, o.TLS = dialTo(srv.address()), trust(roots)
		deliver(t, newNATS(t, o), readings(t, "a", i, i))
		o.TLS = trust(x509.NewCertPool())
		problemOf(t, newNATS(t, o), readings(t, "a", 9, 9), false, "certificate signed by unknown authority")
	}
	wantIDs(t, stream, readings(t, "a", 0, 1))
}
