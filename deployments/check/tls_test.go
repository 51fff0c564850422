package check

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"portmaster/allocator/storetest/processes"
)

// selfSigned makes a certificate, with its key in the same file, that is its own authority, for a server and for a client.
func selfSigned(t *testing.T, name string) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signed, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), name+".pem")
	write(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}))+
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return path
}

// startTLSServer starts a server that speaks TLS, with a listener for operators.
func startTLSServer(t *testing.T, cert string, settings ...string) (addr, ops string) {
	t.Helper()
	addr, ops = freeAddr(t), freeAddr(t)
	cmd := exec.Command(program(t), "serve")
	cmd.Env = append([]string{"PORTMASTER_HTTP_ADDR=" + addr, "PORTMASTER_OPS_ADDR=" + ops, "PORTMASTER_LOG_LEVEL=warn",
		"PORTMASTER_TLS_CERT_FILE=" + cert, "PORTMASTER_TLS_KEY_FILE=" + cert}, settings...)
	processes.Run(t, cmd)
	awaitReady(t, ops)
	return addr, ops
}

// With what its comment says, HAProxy speaks TLS to the servers, verifies them, and shows a certificate of its own.
func TestHAProxySpeaksTLSToTheServers(t *testing.T) {
	server, client := selfSigned(t, "portmaster"), selfSigned(t, "haproxy")
	addr, _ := startTLSServer(t, server, "PORTMASTER_TLS_CLIENT_CA_FILE="+client)
	text := read(t, filepath.Join(deployments, "haproxy.cfg"))
	added := regexp.MustCompile(`(?m)^ +#   (ssl .+)\n +#   (crt .+)$`).FindStringSubmatch(text)
	if added == nil {
		t.Fatal("haproxy.cfg does not say how to speak TLS to the servers")
	}
	for name, test := range map[string]struct {
		options []string
		ca      string
		status  int
	}{
		"both certificates":               {added[1:], server, http.StatusOK},
		"without the own one":             {added[1:2], server, http.StatusServiceUnavailable},
		"with another server's authority": {added[1:], client, http.StatusServiceUnavailable},
	} {
		dir := copyOfDeployments(t)
		options := strings.NewReplacer("/etc/haproxy/portmaster-ca.pem", test.ca, "/etc/haproxy/haproxy.pem", client).Replace(strings.Join(test.options, " "))
		mutant{"haproxy.cfg", "\n    default-server ", "\n    default-server " + options + " ", ""}.put(t, dir)
		balancer := startHAProxy(t, dir, addr, addr, addr)
		status := func() int {
			response, err := http.Get("http://" + balancer + "/v1/services")
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			return response.StatusCode
		}
		if test.status != http.StatusOK {
			eventually(t, name, func() bool { return status() == test.status })
		} else if got := status(); got != test.status {
			t.Errorf("%s: status %d, want %d", name, got, test.status)
		}
	}
}
