package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
	"portmaster/config"
)

// greet makes a first call to Redis that changes nothing. Its error says in one line which setting makes Redis refuse this
// server. A Redis that does not answer is no error, since it may come later.
func greet(ctx context.Context, ports *allocator.Allocator, log *slog.Logger) error {
	err := ports.Greet(ctx)
	if err == nil {
		return nil
	}
	if err := refused(err); err != nil {
		return err
	}
	log.Warn("Redis does not answer yet", slog.Any("error", err))
	return nil
}

// refused returns an error of one line that names the wrong setting, if err shows that Redis will never accept calls with
// these settings. It returns nil if a later call may succeed.
func refused(err error) error {
	if variable, says := refusal(err); variable != "" {
		return fmt.Errorf("%s_%s: %s", config.Prefix, variable, says)
	}
	return nil
}

// refusal says which setting is wrong, and how, if err shows that Redis will never accept this server's calls. It returns
// "" if a later call may succeed.
func refusal(err error) (variable, says string) {
	if errors.Is(err, errNoMaster) {
		return "REDIS_URL", errNoMaster.Error()
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		if _, ok := errors.AsType[x509.HostnameError](certificate); ok {
			return "REDIS_URL", certificate.Err.Error()
		}
		return "REDIS_CA_FILE", "the certificate of Redis is not trusted: " + certificate.Err.Error()
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "REDIS_URL", "Redis does not speak TLS on that port"
	}
	if text, ok := alert(err); ok {
		return "REDIS_CERT_FILE", "Redis refuses the TLS handshake: " + text
	}
	if reply, ok := errors.AsType[redis.Error](err); ok {
		return refusedBy(reply.Error())
	}
	return "", ""
}

// refusedBy is refusal for a reply of Redis or a Sentinel. It decides by the code, which Valkey and all versions of Redis
// share. The code ERR says nothing, so its text is shown, without the arguments of the command, which may be a password.
func refusedBy(reply string) (variable, says string) {
	code, text, _ := strings.Cut(reply, " ")
	switch code {
	case "WRONGPASS", "NOAUTH", "DENIED":
		return "REDIS_URL or " + config.Prefix + "_REDIS_PASSWORD_FILE", "Redis refuses the login: " + code
	case "NOPERM":
		return "REDIS_URL", "the user lacks a permission: " + reply
	case "MOVED":
		return "REDIS_URL", "Redis is a node of a Cluster: the URL must begin with redis+cluster:// or rediss+cluster://"
	case "ERR":
		if strings.HasPrefix(text, "max number of clients") { // it may accept more of them later
			return "", ""
		}
		text, _, _ = strings.Cut(text, ", with args")
		return "REDIS_URL", "the server at this address refuses the calls: " + text
	}
	return "", ""
}
