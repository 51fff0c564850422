// Package certificate keeps the certificate of a server that speaks TLS: it reads the files anew when they change.
package certificate

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"portmaster/handlers/connection"
)

const (
	pollPeriod = 500 * time.Millisecond // a change is in use after two polls
	maxFile    = 1 << 20                // bytes
)

// Files are the paths of the files, in PEM.
type Files struct {
	Cert     string // the certificate, and those between it and its authority
	Key      string // its private key
	ClientCA string // the authorities of the clients' certificates; "": clients need none
}

// Certificate is the certificate of a server, and who its clients must be.
type Certificate struct {
	files  Files
	log    *slog.Logger
	inUse  atomic.Pointer[settings]
	read   digest       // what the files held when inUse was made
	broken atomic.Bool  // what they hold now cannot be used
	failed atomic.Int64 // handshakes
}

// settings are what connections use that come from now on.
type settings struct {
	config *tls.Config
	ends   time.Time // when the first certificate of the chain ends
}

// Open reads the files. Its error begins with the name of the setting that is wrong, without PORTMASTER_. A certificate that has ended
// is only logged: without it there would be no server at all.
func Open(files Files, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{files: files, log: log}
	content := files.read()
	s, err := content.settings()
	if err != nil {
		return nil, err
	}
	if time.Now().After(s.ends) {
		log.Error("the TLS certificate has ended", slog.Time("at", s.ends))
	}
	c.inUse.Store(s)
	c.read = content.digest()
	return c, nil
}

// Follow uses each change of the files until ctx ends. Their contents are compared, so a swapped symlink is a change as well. A change
// counts once two polls in a row have seen it; before, it may be half written. Connections that are open stay as they are.
func (c *Certificate) Follow(ctx context.Context) {
	ticker := time.NewTicker(pollPeriod)
	defer ticker.Stop()
	for last := c.read; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		content := c.files.read()
		now := content.digest()
		if now == last && now != c.read {
			c.read = now
			c.change(content)
		}
		last = now
	}
}

func (c *Certificate) change(content contents) {
	s, err := content.settings()
	if err == nil && time.Now().After(s.ends) {
		err = fmt.Errorf("TLS_CERT_FILE: the certificate ended at %s", s.ends.Format(time.RFC3339))
	}
	c.broken.Store(err != nil)
	if err != nil {
		c.log.Error("the TLS files are broken; what they held before stays in use", slog.Any("error", err))
		return
	}
	c.inUse.Store(s)
	c.log.Info("the TLS files were read", slog.Time("ends", s.ends))
}

// Listen returns a listener on top of l whose connections speak TLS.
func (c *Certificate) Listen(l net.Listener) net.Listener {
	config := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.inUse.Load().config, nil }}
	return connection.ListenTLS(l, config, func(err error) {
		if !errors.Is(err, io.EOF) { // a check that only connects
			c.failed.Add(1)
		}
	})
}

// contents are what the files hold.
type contents struct{ cert, key, clientCA file }

type file struct {
	setting string // "" if it is not set
	content []byte
	err     error
}

func (f Files) read() contents {
	return contents{readFile("TLS_CERT_FILE", f.Cert), readFile("TLS_KEY_FILE", f.Key), readFile("TLS_CLIENT_CA_FILE", f.ClientCA)}
}

// readFile reads a regular file of at most maxFile bytes.
func readFile(setting, path string) file {
	if path == "" {
		return file{}
	}
	fault := func(err error) file { return file{setting: setting, err: fmt.Errorf("%s: %w", setting, err)} }
	if info, err := os.Stat(path); err != nil {
		return fault(err)
	} else if !info.Mode().IsRegular() || info.Size() > maxFile { // a pipe would block
		return fault(fmt.Errorf("%s is not a regular file of at most %d bytes", path, maxFile))
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return fault(err)
	}
	return file{setting, content, nil}
}

type digest [sha256.Size]byte

// digest tells one state of the files from another.
func (c contents) digest() digest {
	hash := sha256.New()
	for _, f := range []file{c.cert, c.key, c.clientCA} {
		fmt.Fprintf(hash, "%d %v\n", len(f.content), f.err)
		hash.Write(f.content)
	}
	return digest(hash.Sum(nil))
}

// settings returns what the contents mean, or an error that begins with the setting that is wrong.
func (c contents) settings() (*settings, error) {
	for _, f := range []file{c.cert, c.key, c.clientCA} {
		if f.err != nil {
			return nil, f.err
		}
	}
	ends, err := c.cert.ends()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(c.cert.content, c.key.content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.key.setting, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	if c.clientCA.setting != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(c.clientCA.content) {
			return nil, fmt.Errorf("%s: it has no certificate in PEM", c.clientCA.setting)
		}
	}
	return &settings{config, ends}, nil
}

// ends returns when the first of the file's certificates ends.
func (f file) ends() (first time.Time, err error) {
	for rest := f.content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return first, fmt.Errorf("%s: %w", f.setting, err)
		}
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	if first.IsZero() {
		return first, fmt.Errorf("%s: it has no certificate in PEM", f.setting)
	}
	return first, nil
}
