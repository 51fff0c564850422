// Package client is the Go package for the HTTP API of Portmaster: it asks a server for ports, keeps their leases, and gives
// them back. It needs the standard library only.
//
//	c, err := client.New("http://127.0.0.1:8080", client.Options{})
//	a, err := c.Claim(ctx, "ci", client.Request{Name: "job-1", Lease: 90 * time.Second}, client.Wait{Longest: time.Minute})
//	defer c.Release(context.WithoutCancel(ctx), a)
//	go c.Keep(ctx, a)
//
// # Repeated calls
//
// The client generates a secret for each request that has none, so a call whose answer got lost can be sent again and is still
// the same call. A call is repeated after 502, 503 and 504, and if the connection failed or an answer did not arrive in time. The
// pause before each repetition is random, grows from 0.1 s to 5 s at most, and begins after the server's Retry-After. A call goes
// on until its context ends, or, if the context has no deadline, for Options.RetryFor. Nothing is repeated that could do
// more than it was asked for: see Release. No redirect is followed, since requests contain secrets.
//
// # Events
//
// History lists what happened to a service. Events follows it, or a whole pool, and connects again by itself:
//
//	for e, err := range c.Events(ctx, "ci", "") {
//		if err != nil {
//			return err
//		}
//		fmt.Println(e.Kind, e.Name, e.Port)
//	}
//
// # Tokens
//
// A server may want to know who calls. The client shows the token in PORTMASTER_TOKEN, or in the file that PORTMASTER_TOKEN_FILE names,
// unless Options.Token says otherwise. No error contains a token.
//
// # Errors
//
// A failed call returns an *Error, or, if its context ended first, an error that wraps the cause of the context and the *Error
// of the last attempt. Compare by errors.Is with the variables of this package, such as ErrExhausted.
package client

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options are the settings of a Client. The zero value is ready for use.
type Options struct {
	Pool     string        // name of the pool; "" is "default"
	Timeout  time.Duration // of one attempt, its time in the waitlist not counted; 0 is 10 s
	RetryFor time.Duration // how long a call is repeated if its context has no deadline, after its Wait; 0 is 30 s; negative: not at all

	// Token returns the token that calls show; nil is EnvironmentToken.
	Token TokenSource

	// OnRetry, if not nil, is told before each repetition why the attempt failed, and how long the pause is. Calls of several
	// goroutines tell it at the same time.
	OnRetry func(failed error, pause time.Duration)

	// HTTP sends the requests: for a proxy, a TLS configuration, or headers that a gateway needs. Its CheckRedirect and Timeout are
	// not used. nil is a client of its own with the settings of http.DefaultTransport.
	HTTP *http.Client
}

// Client calls the API for one pool. Goroutines may share it.
type Client struct {
	base    string // up to and without /v1
	options Options
	http    *http.Client

	maxSilence time.Duration // of a stream of events
}

// New returns a Client of the server, or the load balancer, at an address such as "http://127.0.0.1:8080". A path in the address
// is put in front of those of the API. The server is not asked for anything yet.
func New(address string, options Options) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the address of the server must be http://host:port or https://host:port, not %q", address)
	}
	if options.Pool != "" && !ValidName(options.Pool) {
		return nil, invalid("pools", options.Pool)
	}
	if options.Timeout <= 0 {
		options.Timeout = 10 * time.Second
	}
	if options.Token == nil {
		options.Token = EnvironmentToken
	}
	if options.RetryFor == 0 {
		options.RetryFor = 30 * time.Second
	}
	own := http.Client{}
	if options.HTTP != nil {
		own = *options.HTTP
	}
	if own.Transport == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConnsPerHost = transport.MaxIdleConns // it has one host
		own.Transport = transport
	}
	own.Timeout = 0 // that of an attempt depends on its wait
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{strings.TrimRight(u.String(), "/"), options, &own, maxSilence}, nil
}

// Pool returns a Client for another pool of the same server. It is cheap: both use the same connections.
func (c *Client) Pool(name string) *Client {
	other := *c
	other.options.Pool = name
	return &other
}

// Close closes the connections that are not in use. The Client, and those for its other pools, can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// path returns the path of a route of the pool, below the address. Each part must be a name or a secret: "..", which an
// HTTP server may take for the route above, is none. Behind "ports" it may be an instance name.
func (c *Client) path(parts ...string) (string, error) {
	path := "/v1"
	if c.options.Pool != "" {
		parts = append([]string{"pools", c.options.Pool}, parts...)
	}
	for i, part := range parts {
		if isHolder := i > 0 && parts[i-1] == "ports"; !isHolder && !ValidName(part) || isHolder && !ValidInstanceName(part) {
			return "", invalid(parts[i-1], part)
		}
		path += "/" + url.PathEscape(part)
	}
	return path, nil
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// ValidName reports whether a text can be the name of a pool or a service: 1 to 64 of A-Z a-z 0-9 . _ -, which begin and end with a letter
// or digit. So can secrets and ports.
func ValidName(text string) bool { return isNameOf("._-", 64, text) }

// ValidInstanceName reports whether a text can be the name of a holder: 1 to 128 of A-Z a-z 0-9 . _ - / : @ + ~ =, which begin and end
// with a letter or digit.
func ValidInstanceName(text string) bool { return isNameOf("._-/:@+~=", 128, text) }

func isNameOf(marks string, longest int, text string) bool {
	return len(text) >= 1 && len(text) <= longest && text == strings.Trim(text, marks) && strings.Trim(text, alphanumeric+marks) == ""
}

// invalid is the error of a call that has no path: for the part behind another one, such as the name behind "services".
func invalid(behind, text string) *Error {
	rule := "1 to 64 characters of A-Z a-z 0-9 . _ -"
	if behind == "ports" {
		rule = "1 to 128 characters of A-Z a-z 0-9 . _ - / : @ + ~ ="
	}
	fault := FieldError{strings.TrimSuffix(behind, "s"), fmt.Sprintf("%q is no name: %s, which begin and end with a letter or digit", text, rule)}
	if behind == "offers" { // no error shows a secret
		fault = FieldError{"secret", "must be a random UUID in lower case"}
	}
	return &Error{Code: ErrInvalid.Code, Detail: "the request was not sent", Fields: []FieldError{fault}}
}

// NewSecret returns a new secret: a random UUID (version 4) in lower case.
func NewSecret() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	text := hex.EncodeToString(b[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
