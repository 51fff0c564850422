package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// A TokenSource returns the token that a call shows to the server; "" is none. It is asked before each attempt, so a token that is
// replaced while a lease is kept is in use from the next renewal on. Goroutines may ask it at the same time.
type TokenSource func(ctx context.Context) (string, error)

// The variables of EnvironmentToken.
const (
	TokenVariable     = "PORTMASTER_TOKEN"
	TokenFileVariable = "PORTMASTER_TOKEN_FILE"
)

// EnvironmentToken returns the token in PORTMASTER_TOKEN, or else what the file named by PORTMASTER_TOKEN_FILE holds at that moment, or
// none.
func EnvironmentToken(ctx context.Context) (string, error) {
	if token := os.Getenv(TokenVariable); token != "" {
		return token, nil
	}
	if path := os.Getenv(TokenFileVariable); path != "" {
		return FileToken(path)(ctx)
	}
	return "", nil
}

// FileToken returns what a file holds at that moment, without white space around it: a token of Portmaster, or a JSON Web Token that
// Kubernetes or GitLab keeps fresh. An empty file is an error.
func FileToken(path string) TokenSource {
	return func(context.Context) (string, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		token := strings.TrimSpace(string(text))
		if token == "" {
			return "", fmt.Errorf("%s has no token", path)
		}
		return token, nil
	}
}

// The bounds of GitHubToken.
const (
	tokenTimeout = 10 * time.Second
	tokenSpare   = time.Minute // a token with less time left is replaced
	maxToken     = 64 << 10    // bytes of the runner's answer
)

// GitHubToken asks the GitHub Actions runner of this job for an ID token with an audience, and for the next one a minute before it ends.
// The job needs the permission id-token: write.
func GitHubToken(audience string) TokenSource {
	s := &githubToken{audience: audience, http: &http.Client{Timeout: tokenTimeout}}
	return s.token
}

type githubToken struct {
	audience string
	http     *http.Client

	mu    sync.Mutex // guards what follows
	value string
	ends  time.Time
}

func (s *githubToken) token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Until(s.ends) > tokenSpare {
		return s.value, nil
	}
	value, err := s.fetch(ctx)
	if err != nil {
		return "", err
	}
	s.value, s.ends = value, endOf(value)
	return value, nil
}

func (s *githubToken) fetch(ctx context.Context) (string, error) {
	address, secret := os.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), os.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if address == "" || secret == "" {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not set: the job needs the permission id-token: write")
	}
	separator := "?"
	if strings.Contains(address, "?") {
		separator = "&"
	}
	request, err := http.NewRequestWithContext(ctx, "GET", address+separator+"audience="+url.QueryEscape(s.audience), http.NoBody)
	if err != nil {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is no address")
	}
	request.Header.Set("Authorization", "Bearer "+secret)
	response, err := s.http.Do(request)
	if err != nil {
		return "", unavailableToken("the runner does not answer", unanswered(err).cause)
	}
	defer response.Body.Close()
	var answer struct{ Value string }
	err = json.NewDecoder(io.LimitReader(response.Body, maxToken)).Decode(&answer)
	if response.StatusCode != http.StatusOK || err != nil || answer.Value == "" {
		return "", unavailableToken("the runner answered "+response.Status+", and no token", nil)
	}
	return answer.Value, nil
}

// unavailableToken is the error of a token that may be had a little later.
func unavailableToken(why string, cause error) *Error {
	return &Error{Code: ErrUnavailable.Code, Detail: "there is no ID token: " + why, cause: cause}
}

// endOf returns when a JSON Web Token ends by its own words; now if it does not say.
func endOf(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Now()
	}
	var claims struct {
		Exp float64 `json:"exp"`
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return time.Now()
	}
	return time.Unix(int64(claims.Exp), 0)
}

// authorize adds the token to a request.
func (c *Client) authorize(request *http.Request) *Error {
	token, err := c.options.Token(request.Context())
	switch failed, ok := errors.AsType[*Error](err); {
	case ok:
		return failed
	case err != nil:
		return &Error{Code: ErrUnavailable.Code, Detail: "there is no token", cause: err, final: true}
	case strings.ContainsAny(token, "\r\n"):
		return &Error{Code: ErrInvalid.Code, Detail: "the token has more than one line", final: true}
	case token != "":
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}
