package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest"
)

// opsAddr returns where a program serves operators.
func (p *program) opsAddr(t *testing.T) string {
	t.Helper()
	found := regexp.MustCompile(`msg="serving operators" address=(\S+)`).FindStringSubmatch(p.log.String())
	if found == nil {
		t.Fatalf("no listener for operators in the log:\n%s", p.log)
	}
	return found[1]
}

// serverFiles are files of a certificate for the server, which is also one of a client.
func serverFiles(t *testing.T) (files storetest.TLSFiles, settings []string) {
	t.Helper()
	authority, err := storetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if files, err = authority.Issue("server"); err != nil {
		t.Fatal(err)
	}
	return files, []string{"PORTMASTER_TLS_CERT_FILE=" + files.Cert, "PORTMASTER_TLS_KEY_FILE=" + files.Key}
}

// portmaster healthcheck finds the server, whatever its listeners speak.
func TestHealthcheckOfEachListener(t *testing.T) {
	t.Parallel()
	files, overTLS := serverFiles(t)
	mutual := slices.Concat(overTLS, []string{"PORTMASTER_TLS_CLIENT_CA_FILE=" + files.CA})
	const ops = "PORTMASTER_OPS_ADDR=127.0.0.1:0"
	for name, test := range map[string]struct {
		settings []string
		says     string
	}{
		"TLS":                   {overTLS, " is ready\n"},
		"mTLS":                  {mutual, "refuses a client without a certificate (certificate required): set PORTMASTER_OPS_ADDR\n"},
		"mTLS and an ops addr":  {slices.Concat(mutual, []string{ops}), " is ready\n"},
		"plain and an ops addr": {[]string{ops}, " is ready\n"},
	} {
		p := startProgram(t, test.settings...)
		settings := slices.Concat(test.settings, []string{"PORTMASTER_HTTP_ADDR=" + p.addr})
		if test.settings[len(test.settings)-1] == ops {
			settings = append(settings, "PORTMASTER_OPS_ADDR="+p.opsAddr(t), "PORTMASTER_HTTP_ADDR=127.0.0.1:1")
		}
		if _, stdout, stderr := run(t, []string{"healthcheck"}, settings...); !strings.HasSuffix(stdout+stderr, test.says) {
			t.Errorf("%s: it says %q", name, stdout+stderr)
		}
	}
}

// A flood of connections takes every file descriptor: the server goes on once they are closed, and its probes answer.
func TestServeOutlivesTheLastFileDescriptor(t *testing.T) {
	t.Parallel()
	like := programCommand([]string{"serve"}, "PORTMASTER_OPS_ADDR=127.0.0.1:0")
	cmd := exec.Command("sh", "-c", `ulimit -n 40; exec "$0" serve`, like.Path)
	cmd.Env = like.Env
	p := startCommand(t, cmd, patience)
	var conns []net.Conn
	for range 60 {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	time.Sleep(200 * time.Millisecond) // it lacks one for the last of them
	if p.status(t, "/livez") == 200 {
		t.Fatal("there are file descriptors left")
	}
	for _, conn := range conns {
		conn.Close()
	}
	operators := &program{addr: p.opsAddr(t)}
	eventually(t, "both ports answer", func() bool { return p.status(t, "/livez") == 200 && operators.status(t, "/livez") == 200 })
}

// With TLS, the metrics tell when the certificate ends; without, they do not.
func TestServeTLS(t *testing.T) {
	t.Parallel()
	_, overTLS := serverFiles(t)
	const ops = "PORTMASTER_OPS_ADDR=127.0.0.1:0"
	const name = "portmaster_tls_certificate_ends_in_seconds "
	p, plain := startProgram(t, append(overTLS, ops)...), startProgram(t)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := client.Get("https://" + p.addr + "/v1/services")
	if err != nil || response.StatusCode != 200 {
		t.Fatal(response, err)
	}
	operators := &program{addr: p.opsAddr(t)}
	if figures := operators.must(t, 200, "GET", "/metrics", ""); !strings.Contains(figures, name) {
		t.Error("the metrics do not tell when the certificate ends")
	}
	if figures := plain.must(t, 200, "GET", "/metrics", ""); strings.Contains(figures, name) {
		t.Error("the metrics tell of a certificate that does not exist")
	}
}
