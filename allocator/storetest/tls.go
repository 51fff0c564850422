package storetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// TLSFiles are files in PEM: who to trust, and who one is.
type TLSFiles struct{ CA, Cert, Key string }

// Settings returns the variables, NAME=value, of a server that is to use the files.
func (f TLSFiles) Settings() []string {
	return []string{"PORTMASTER_REDIS_CA_FILE=" + f.CA, "PORTMASTER_REDIS_CERT_FILE=" + f.Cert, "PORTMASTER_REDIS_KEY_FILE=" + f.Key}
}

func (f TLSFiles) config() (*tls.Config, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ServerName: "127.0.0.1"}, err
}

// Authority signs certificates.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority whose files are in a folder.
func NewAuthority(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, key: key, cert: &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority of " + dir}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	_, err = a.sign("ca", a.cert, key)
	return a, err
}

// Issue makes a certificate for 127.0.0.1, with which one may serve and call.
func (a *Authority) Issue(name string) (TLSFiles, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return TLSFiles{}, err
	}
	return a.sign(name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, key)
}

func (a *Authority) sign(name string, cert *x509.Certificate, key *ecdsa.PrivateKey) (TLSFiles, error) {
	cert.NotBefore, cert.NotAfter = time.Now().AddDate(-10, 0, 0), time.Now().AddDate(10, 0, 0) // the clock of a Redis may be the test's
	cert.SerialNumber = big.NewInt(time.Now().UnixNano())
	signed, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return TLSFiles{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return TLSFiles{}, err
	}
	files := TLSFiles{
		CA: filepath.Join(a.dir, "ca.pem"), Cert: filepath.Join(a.dir, name+".pem"), Key: filepath.Join(a.dir, name+".key"),
	}
	if err := os.WriteFile(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600); err != nil {
		return TLSFiles{}, err
	}
	return files, os.WriteFile(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// dialTLS opens connections of which go-redis sees when Redis has closed them, as the server does.
func dialTLS(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: config}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return tlsConn{conn.(*tls.Conn)}, nil
	}
}

type tlsConn struct{ *tls.Conn }

// SyscallConn is called by go-redis.
func (c tlsConn) SyscallConn() (syscall.RawConn, error) {
	return c.NetConn().(syscall.Conn).SyscallConn()
}
