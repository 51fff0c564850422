package storetest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Sentinel returns the address of a Sentinel of the test's own, which watches a Redis under the name mymaster and has
// further lines in its file. It speaks TLS where that Redis does, and shows the same certificate as the server.
func Sentinel(t testing.TB, watched Store, lines ...string) (addr string) {
	t.Helper()
	s, err := start(func(s *redisServer) error {
		s.options = optionsOf(s.addr)
		host, port, _ := net.SplitHostPort(s.addr)
		masterHost, masterPort, _ := net.SplitHostPort(watched.Addr)
		conf := append([]string{
			"bind " + host, "dir " + s.dir, "logfile " + s.log(),
			"sentinel monitor mymaster " + masterHost + " " + masterPort + " 1",
			"sentinel auth-user mymaster sentinel", "sentinel auth-pass mymaster " + Password,
		}, lines...)
		if watched.TLS == nil {
			conf = append(conf, "port "+port)
		} else {
			s.options.TLSConfig, s.options.Dialer = watched.options.TLSConfig, watched.options.Dialer
			conf = append(conf, "port 0", "tls-port "+port, "tls-replication yes", "tls-ca-cert-file "+watched.TLS.CA,
				"tls-cert-file "+watched.TLS.Cert, "tls-key-file "+watched.TLS.Key)
		}
		path := filepath.Join(s.dir, "sentinel.conf")
		s.args = []string{path, "--sentinel"}
		return os.WriteFile(path, []byte(strings.Join(conf, "\n")), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s.addr
}
