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

// addCredentials adds the credentials in the files of the settings to the options of a client. Errors name the variable.
func addCredentials(options *redis.UniversalOptions, settings config.Config) error {
	if err := addPassword(options, settings.RedisPasswordFile); err != nil {
		return fmt.Errorf("%s_REDIS_PASSWORD_FILE: %w", config.Prefix, err)
	}
	if options.TLSConfig == nil {
		return nil
	}
	// Every node's certificate must have the host of the URL as its name; no option of the URL changes that.
	options.TLSConfig = &tls.Config{ServerName: options.TLSConfig.ServerName, MinVersion: tls.VersionTLS12}
	if err := addCA(options.TLSConfig, settings.RedisCAFile); err != nil {
		return fmt.Errorf("%s_REDIS_CA_FILE: %w", config.Prefix, err)
	}
	if err := addCertificate(options.TLSConfig, settings.RedisCertFile, settings.RedisKeyFile); err != nil {
		return fmt.Errorf("%s_REDIS_CERT_FILE: %w", config.Prefix, err)
	}
	return nil
}

// addPassword makes the client read the password for each new connection, so that a new password needs no restart. With
// Sentinels it is the password of the data nodes.
func addPassword(options *redis.UniversalOptions, path string) error {
	if path == "" {
		return nil
	}
	if options.Password != "" {
		return fmt.Errorf("%s_REDIS_URL has a password as well", config.Prefix)
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
		return fmt.Errorf("%s contains no PEM certificate", path)
	}
	return nil
}

// addCertificate makes the client read the certificate for each new connection, so that a new one needs no restart.
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
