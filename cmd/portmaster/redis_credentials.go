package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// addCredentials adds what the files of the settings hold to the options of a client. Each error names the variable.
func addCredentials(options *redis.UniversalOptions, settings config.Config) error {
	if err := addPassword(options, settings.RedisPasswordFile); err != nil {
		return fmt.Errorf("%s_REDIS_PASSWORD_FILE: %w", config.Prefix, err)
	}
	if options.TLSConfig == nil {
		return nil
	}
	// The host of the URL is the name that every node's certificate must have; no option of the URL changes that.
	options.TLSConfig = &tls.Config{ServerName: options.TLSConfig.ServerName, MinVersion: tls.VersionTLS12}
	if err := addCA(options.TLSConfig, settings.RedisCAFile); err != nil {
		return fmt.Errorf("%s_REDIS_CA_FILE: %w", config.Prefix, err)
	}
	if err := addCertificate(options.TLSConfig, settings.RedisCertFile, settings.RedisKeyFile); err != nil {
		return fmt.Errorf("%s_REDIS_CERT_FILE: %w", config.Prefix, err)
	}
	return nil
}

// addPassword has the password read for each new connection, so that a new one needs no restart. With Sentinels it is that
// of the data nodes.
func addPassword(options *redis.UniversalOptions, path string) error {
	if path == "" {
		return nil
	}
	if options.Password != "" {
		return fmt.Errorf("%s_REDIS_URL has a password, too", config.Prefix)
	}
	if _, err := readPassword(path); err != nil {
		return err
	}
	user := options.Username
	options.CredentialsProviderContext = func(context.Context) (string, string, error) {
		password, err := readPassword(path)
		return user, password, notConnected(err)
	}
	return nil
}

func readPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return password, nil
}

func addCA(to *tls.Config, path string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	to.RootCAs = x509.NewCertPool()
	if !to.RootCAs.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return nil
}

// addCertificate has the certificate read for each new connection, so that a new one needs no restart.
func addCertificate(to *tls.Config, certFile, keyFile string) error {
	if certFile == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		return err
	}
	to.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}
	return nil
}
