package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"portmaster/config"
	"portmaster/handlers/certificate"
)

// serverCertificate is the certificate of the API's listener, or nil if it speaks plain HTTP.
type serverCertificate struct{ *certificate.Certificate }

// openCertificate reads the files of the listener's certificate.
func openCertificate(settings config.Config, log *slog.Logger) (serverCertificate, error) {
	if settings.TLSCertFile == "" {
		return serverCertificate{}, nil
	}
	opened, err := certificate.Open(certificate.Files{
		Cert: settings.TLSCertFile, Key: settings.TLSKeyFile, ClientCA: settings.TLSClientCAFile,
	}, log)
	if err != nil {
		return serverCertificate{}, fmt.Errorf("%s_%w", config.Prefix, err)
	}
	return serverCertificate{opened}, nil
}

// metrics returns what is to be shown of the certificate.
func (c serverCertificate) metrics() []prometheus.Collector {
	if c.Certificate == nil {
		return nil
	}
	return []prometheus.Collector{c}
}

// listen puts TLS on a listener, and follows the files until ctx ends.
func (c serverCertificate) listen(ctx context.Context, l net.Listener) net.Listener {
	if c.Certificate == nil {
		return l
	}
	go c.Follow(ctx)
	return c.Listen(l)
}
