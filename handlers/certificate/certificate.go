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
	"sync/atomic"
	"time"

	"portmaster/handlers/connection"
	"portmaster/handlers/follow"
)

const maxFile = 1 << 20 // bytes

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
	read   follow.Version // what the files held when inUse was made first
	broken atomic.Bool    // what they hold now cannot be used
	failed atomic.Int64   // handshakes
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
	c.read = content.version()
	return c, nil
}

// Follow uses each change of the files until ctx ends. Connections that are open stay as they are.
func (c *Certificate) Follow(ctx context.Context) {
	follow.Changes(ctx, c.read, func() (now follow.Version, use func()) {
		content := c.files.read()
		return content.version(), func() { c.change(content) }
	})
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

func readFile(setting, path string) file {
	if path == "" {
		return file{}
	}
	content, err := follow.Read(path, maxFile)
	if err != nil {
		return file{setting: setting, err: fmt.Errorf("%s: %w", setting, err)}
	}
	return file{setting, content, nil}
}

func (c contents) version() follow.Version {
	hash := sha256.New()
	for _, f := range []file{c.cert, c.key, c.clientCA} {
		fmt.Fprintf(hash, "%d %v\n", len(f.content), f.err)
		hash.Write(f.content)
	}
	return follow.Version(hash.Sum(nil))
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
