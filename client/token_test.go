package client_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"portmaster/client"
)

// newGate starts a server that tells which Authorization header it last saw.
func newGate(t *testing.T, options client.Options) (c *client.Client, last func() string) {
	t.Helper()
	var seen atomic.Value
	seen.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "[]")
	}))
	t.Cleanup(server.Close)
	c, err := client.New(server.URL, options)
	must(t, err)
	t.Cleanup(c.Close)
	return c, func() string { return seen.Load().(string) }
}

// ask makes a call.
func ask(c *client.Client) (err error) {
	for _, err = range c.Pools(context.Background()) {
		break
	}
	return err
}

func TestEnvironmentToken(t *testing.T) {
	t.Setenv(client.TokenVariable, "")
	t.Setenv(client.TokenFileVariable, "")
	c, last := newGate(t, client.Options{})
	wants := func(want string) {
		t.Helper()
		if err := ask(c); err != nil || last() != want {
			t.Errorf("the server saw %q, %v, want %q", last(), err, want)
		}
	}
	wants("")
	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte("pm_one\n"), 0o600))
	t.Setenv(client.TokenFileVariable, file)
	wants("Bearer pm_one")
	must(t, os.WriteFile(file, []byte("pm_two"), 0o600)) // as a rotation does
	wants("Bearer pm_two")
	t.Setenv(client.TokenVariable, "pm_three")
	wants("Bearer pm_three")
	for text, want := range map[string]string{"": "has no token", "pm_canary\npm_canary": "more than one line"} {
		must(t, os.WriteFile(file, []byte(text), 0o600))
		t.Setenv(client.TokenVariable, "")
		began := time.Now()
		err := ask(c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") || time.Since(began) > 10*time.Second {
			t.Errorf("%q: %v, want %s, at once", text, err, want)
		}
	}
	must(t, os.Remove(file))
	if err := ask(c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A job's token is asked for once, and again before it ends; while the runner does not answer, the call is repeated.
func TestGitHubToken(t *testing.T) {
	var fetches, failures atomic.Int64
	lasts := atomic.Int64{}
	lasts.Store(int64(time.Hour))
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-runner" || r.URL.Query().Get("audience") != "ports & more" || r.URL.Query().Get("api") != "1" {
			t.Errorf("the runner is asked with %s and %s", r.Header.Get("Authorization"), r.URL)
		}
		if failures.Add(-1) >= 0 {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		end := time.Now().Add(time.Duration(lasts.Load())).Unix()
		claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, end))
		fmt.Fprintf(w, `{"value":"h%d.%s.s"}`, fetches.Add(1), claims)
	}))
	defer runner.Close()
	c, last := newGate(t, client.Options{Token: client.GitHubToken("ports & more")})
	if err := ask(c); err == nil || !strings.Contains(err.Error(), "id-token: write") {
		t.Errorf("outside of a job: %v", err)
	}
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", runner.URL+"/token?api=1")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-the-runner")
	failures.Store(2)
	for range 3 {
		must(t, ask(c))
	}
	if fetches.Load() != 1 || !strings.HasPrefix(last(), "Bearer h1.") {
		t.Errorf("%d tokens for three calls, the last is %s", fetches.Load(), last())
	}
	lasts.Store(int64(30 * time.Second)) // less than a minute: each call needs a new one
	c, last = newGate(t, client.Options{Token: client.GitHubToken("ports & more")})
	for range 2 {
		must(t, ask(c))
	}
	if fetches.Load() != 3 || !strings.HasPrefix(last(), "Bearer h3.") {
		t.Errorf("%d tokens, the last is %s", fetches.Load(), last())
	}
}
