package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"portmaster/allocator/storetest"
)

// httpsClient trusts the authority of some files, and shows their certificate if own is set. Sessions are not resumed.
func httpsClient(t *testing.T, files storetest.TLSFiles, own, keepAlive bool) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(pem)
	if own {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: !keepAlive}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// The certificate changes under load, by a link as in Kubernetes: no request fails, on connections new and old. Strangers get in
// neither before nor after.
func TestServeSwapsItsCertificateUnderLoad(t *testing.T) {
	t.Parallel()
	authority, err := storetest.NewAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	issue := func(name string) storetest.TLSFiles {
		files, err := authority.Issue(name)
		folder, link := filepath.Join(dir, name), filepath.Join(dir, "link")
		err = errors.Join(err, os.Mkdir(folder, 0o700), os.Link(files.Cert, filepath.Join(folder, "tls.crt")),
			os.Link(files.Key, filepath.Join(folder, "tls.key")), os.Symlink(folder, link), os.Rename(link, filepath.Join(dir, "now")))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	files := issue("first")
	p := startProgram(t, "PORTMASTER_TLS_CERT_FILE="+filepath.Join(dir, "now/tls.crt"),
		"PORTMASTER_TLS_KEY_FILE="+filepath.Join(dir, "now/tls.key"), "PORTMASTER_TLS_CLIENT_CA_FILE="+files.CA)
	get := func(client *http.Client) (name string, err error) {
		response, err := client.Get("https://" + p.addr + "/v1/services")
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			err = errors.New(response.Status)
		}
		return response.TLS.PeerCertificates[0].Subject.CommonName, err
	}
	stranger := httpsClient(t, files, false, false)
	if _, err := get(stranger); err == nil {
		t.Error("a client without a certificate gets in")
	}
	var stop atomic.Bool
	var requests atomic.Int64
	var load sync.WaitGroup
	for _, keepAlive := range []bool{true, true, false, false} {
		client := httpsClient(t, files, true, keepAlive)
		load.Go(func() {
			for !stop.Load() {
				if _, err := get(client); err != nil {
					t.Error(err)
					return
				}
				requests.Add(1)
			}
		})
	}
	fresh := httpsClient(t, files, true, false)
	for _, name := range []string{"second", "third"} {
		issue(name)
		eventually(t, name+" is served", func() bool { served, err := get(fresh); return err == nil && served == name })
	}
	stop.Store(true)
	load.Wait()
	if requests.Load() < 20 { // a busy machine makes few
		t.Errorf("only %d requests were made", requests.Load())
	}
	if _, err := get(stranger); err == nil {
		t.Error("a client without a certificate gets in")
	}
	for line := range strings.Lines(p.log.String()) {
		if !strings.HasPrefix(line, "time=") {
			t.Errorf("a line that is not the server's own: %s", line)
		}
	}
}
