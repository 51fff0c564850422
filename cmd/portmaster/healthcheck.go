package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portmaster/config"
)

func healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Check whether the server on this machine is ready",
		Long: "Request /readyz from the server at " + config.Prefix + "_OPS_ADDR, or at " + config.Prefix + "_HTTP_ADDR if that is not set,\n" +
			"and on this machine if the address names no host. The exit code is 0 if the server is ready. Otherwise it is 1, and\n" +
			"the reason is printed. Use it in images without curl.",
		Example: "  PORTMASTER_HTTP_ADDR=:8080 portmaster healthcheck",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load()
			if err != nil {
				return err
			}
			scheme, addr := "http://", dialAddr(cmp.Or(settings.OpsAddr, settings.HTTPAddr))
			if settings.OpsAddr == "" && settings.TLSCertFile != "" {
				scheme = "https://"
			}
			// The server itself waits for Redis that long before it says that it is not ready.
			ctx, cancel := context.WithTimeout(cmd.Context(), settings.RedisTimeout+time.Second)
			defer cancel()
			if err := healthcheck(ctx, scheme+addr); err != nil {
				return fmt.Errorf("%s is not ready: %w", addr, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is ready\n", addr)
			return nil
		},
	}
}

// dialAddr returns the address at which a server that listens on addr can be reached from its own machine.
func dialAddr(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	switch ip := net.ParseIP(host); {
	case host == "", ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.Equal(net.IPv6zero):
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

// healthcheck returns nil if the server at a URL is ready. Its error says what the server answered, or why it did not.
func healthcheck(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	direct := http.Transport{ // no proxy, whatever the environment says
		// Its certificate has another name than this address. Nothing secret is sent.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	response, err := direct.RoundTrip(request)
	if err != nil {
		if _, text, ok := strings.Cut(err.Error(), "remote error: tls: "); ok {
			return fmt.Errorf("it refuses a client without a certificate (%s): set %s_OPS_ADDR", text, config.Prefix)
		}
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	var problem struct{ Detail string }
	if err := json.NewDecoder(response.Body).Decode(&problem); err != nil {
		return fmt.Errorf("/readyz returned %s", response.Status)
	}
	return fmt.Errorf("%s", problem.Detail)
}
