package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"portmaster/config"
	"portmaster/handlers/identity"
)

// authenticator returns what knows the callers, or nil if the server is open. An open server must listen on this machine only,
// unless it is open on purpose.
func authenticator(ctx context.Context, settings config.Config, listener net.Addr, log *slog.Logger) (*identity.Authenticator, error) {
	if !settings.Open() {
		return identity.New(ctx, identity.Options{TokensFile: settings.AuthTokensFile, OIDCFile: settings.AuthOIDCFile, Log: log})
	}
	if settings.Auth == config.OpenOnPurpose {
		log.Warn("everybody who reaches this server may do everything, since PORTMASTER_AUTH=none",
			slog.String("address", listener.String()))
		return nil, nil
	}
	if tcp, ok := listener.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%[1]s_HTTP_ADDR=%[2]s can be reached from other machines: "+
			"set %[1]s_AUTH_TOKENS_FILE or %[1]s_AUTH_OIDC_FILE, or %[1]s_AUTH=%[3]s if everybody may do everything", config.Prefix, settings.HTTPAddr, config.OpenOnPurpose)
	}
	return nil, nil
}
