package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"portmaster/allocator/storetest"
	"portmaster/allocator/storetest/processes"
)

// server echoes a byte over TLS, with files in a folder that a test changes.
type server struct {
	t    *testing.T
	dir  string
	cert *Certificate
	addr string
	log  *logs
}

// authority makes an authority with a folder of its own.
func authority(t *testing.T) *storetest.Authority {
	t.Helper()
	a, err := storetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *storetest.Authority, name string) storetest.TLSFiles {
	t.Helper()
	files, err := a.Issue(name)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// start serves with copies of the files, and checks clients if mutual is set.
func start(t *testing.T, files storetest.TLSFiles, mutual bool) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), log: &logs{}}
	s.put(files)
	paths := Files{Cert: s.path("tls.crt"), Key: s.path("tls.key")}
	if mutual {
		paths.ClientCA = s.path("ca.crt")
	}
	var err error
	if s.cert, err = Open(paths, slog.New(slog.NewTextHandler(s.log, nil))); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.addr = l.Addr().String()
	go s.cert.Follow(t.Context())
	go echo(s.cert.Listen(l))
	return s
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if conn.(interface{ Handshake() error }).Handshake() == nil {
				io.Copy(conn, conn)
			}
		}()
	}
}

func (s *server) path(name string) string { return filepath.Join(s.dir, "now", name) }

// put replaces all files in one step, as Kubernetes does: by a link to a new folder.
func (s *server) put(files storetest.TLSFiles) {
	s.t.Helper()
	folder, err := os.MkdirTemp(s.dir, "")
	if err != nil {
		s.t.Fatal(err)
	}
	for name, from := range map[string]string{"tls.crt": files.Cert, "tls.key": files.Key, "ca.crt": files.CA} {
		content, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content, 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	link := filepath.Join(s.dir, "next")
	if err := errors.Join(os.Symlink(folder, link), os.Rename(link, filepath.Join(s.dir, "now"))); err != nil {
		s.t.Fatal(err)
	}
}

// dial connects, and makes the server answer.
func (s *server) dial(config *tls.Config) (*tls.Conn, error) {
	conn, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn, ping(conn)
}

func ping(conn *tls.Conn) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// trusting is a client that trusts an authority, and shows a certificate if there is one.
func trusting(t *testing.T, ca string, own ...storetest.TLSFiles) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ClientSessionCache: tls.NewLRUClientSessionCache(8)}
	config.RootCAs.AppendCertsFromPEM(pem)
	for _, files := range own {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return config
}

// gauge returns the value of a metric.
func (s *server) gauge(name string) float64 {
	s.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s.cert)
	families, err := registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, family := range families {
		if metric := family.Metric[0]; family.GetName() == name {
			return metric.GetGauge().GetValue() + metric.GetCounter().GetValue() // it has one of them
		}
	}
	s.t.Fatalf("there is no %s", name)
	return 0
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	processes.Eventually(t, 20*time.Second, what, ok)
}

// logs gathers what is logged.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// Certificates change again and again under load: no connection fails, new or old, and new ones get the new certificate.
func TestSwapUnderLoad(t *testing.T) {
	a := authority(t)
	names := []string{"one", "two", "three"}
	s := start(t, issue(t, a, names[0]), false)
	client := trusting(t, issue(t, a, "client").CA)
	client.ClientSessionCache = nil // a resumed session would show the certificate of before
	old, err := s.dial(client)
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var dialled atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for !stop.Load() {
				conn, err := tls.Dial("tcp", s.addr, client)
				if err == nil {
					err = ping(conn)
					conn.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
				dialled.Add(1)
			}
		})
	}
	for _, name := range names[1:] {
		s.put(issue(t, a, name))
		eventually(t, name+" is served", func() bool {
			conn, err := s.dial(client)
			return err == nil && conn.ConnectionState().PeerCertificates[0].Subject.CommonName == name
		})
	}
	stop.Store(true)
	load.Wait()
	if dialled.Load() < 10 {
		t.Errorf("only %d connections were made", dialled.Load())
	}
	if err := ping(old); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
}

// What cannot be used changes nothing, is logged and shown, and is over when the files are right again.
func TestBrokenFilesKeepTheOld(t *testing.T) {
	a := authority(t)
	good := issue(t, a, "good")
	s := start(t, good, false)
	client := trusting(t, good.CA)
	if ends := s.gauge("portmaster_tls_certificate_ends_in_seconds"); ends < 9*365*86400 || ends > 11*365*86400 {
		t.Errorf("the certificate ends in %g s", ends)
	}
	other := issue(t, a, "other")
	for what, broken := range map[string]storetest.TLSFiles{
		"TLS_CERT_FILE: it has no certificate": {CA: good.CA, Cert: good.Key, Key: good.Key},
		"TLS_KEY_FILE: tls: private key does":  {CA: good.CA, Cert: other.Cert, Key: good.Key},
	} {
		s.put(broken)
		eventually(t, what, func() bool { return s.gauge("portmaster_tls_files_broken") == 1 && s.log.contains(what) })
		conn, err := s.dial(client)
		if err != nil || conn.ConnectionState().PeerCertificates[0].Subject.CommonName != "good" {
			t.Errorf("%s: the old certificate is not served: %v", what, err)
		}
		s.put(good)
		eventually(t, "it is right again", func() bool { return s.gauge("portmaster_tls_files_broken") == 0 })
	}
	os.Remove(s.path("tls.key"))
	eventually(t, "a missing file", func() bool {
		return s.gauge("portmaster_tls_files_broken") == 1 && s.log.contains("TLS_KEY_FILE: stat ")
	})
	if _, err := s.dial(client); err != nil {
		t.Error(err)
	}
}

// Only clients of the authority get in. One of an authority that no longer counts does not, by a session from before either.
func TestStrangers(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	files := issue(t, ours, "server")
	s := start(t, files, true)
	friend := trusting(t, files.CA, issue(t, ours, "friend"))
	for _, resumed := range []bool{false, true} {
		if conn, err := s.dial(friend); err != nil || conn.ConnectionState().DidResume != resumed {
			t.Fatalf("%v, resumed %t", err, !resumed)
		}
	}
	for who, config := range map[string]*tls.Config{
		"nobody":     trusting(t, files.CA),
		"a stranger": trusting(t, files.CA, issue(t, theirs, "friend")),
	} {
		before := s.gauge("portmaster_tls_handshakes_failed_total")
		if _, err := s.dial(config); err == nil {
			t.Errorf("%s gets in", who)
		}
		eventually(t, "it is counted", func() bool { return s.gauge("portmaster_tls_handshakes_failed_total") == before+1 })
	}
	s.put(storetest.TLSFiles{CA: issue(t, theirs, "x").CA, Cert: files.Cert, Key: files.Key})
	eventually(t, "the other authority counts", func() bool {
		_, err := s.dial(trusting(t, files.CA, issue(t, theirs, "y")))
		return err == nil
	})
	if _, err := s.dial(friend); err == nil {
		t.Error("who was a friend still gets in")
	}
}

// An error names the setting. A file that is a pipe does not block.
func TestOpenNamesTheSetting(t *testing.T) {
	good := issue(t, authority(t), "good")
	for says, files := range map[string]Files{
		"TLS_CERT_FILE: stat /nowhere":                 {Cert: "/nowhere", Key: good.Key},
		"TLS_CERT_FILE: /dev/null is not":              {Cert: "/dev/null", Key: good.Key},
		"TLS_KEY_FILE: tls: found a certificate":       {Cert: good.Cert, Key: good.Cert},
		"TLS_CLIENT_CA_FILE: it has no certificate in": {Cert: good.Cert, Key: good.Key, ClientCA: good.Key},
	} {
		_, err := Open(files, slog.New(slog.DiscardHandler))
		if err == nil || !strings.HasPrefix(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("the error is %v, want %q", err, says)
		}
	}
}
