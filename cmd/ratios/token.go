package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/valyala/fasthttp"

	"portmaster/handlers/identity"
)

// callers are two servers that answer the same call: one that knows callers by their tokens, and one that is open.
type callers struct {
	token         string
	guarded, open *exec.Cmd
	urls          [2]string
}

// startCallers starts both, once.
func (b *bench) startCallers() error {
	if b.callers != nil {
		return nil
	}
	c := &callers{token: identity.NewToken()}
	line, err := identity.Line("bench", identity.Operator, "bench/*,default/ci-*", "rate=1000000", c.token)
	if err != nil {
		return err
	}
	path := filepath.Join(b.dir, "tokens")
	if err := os.WriteFile(path, []byte(line+"\n"), 0o600); err != nil {
		return err
	}
	if c.urls[0], c.guarded, err = b.serve("PORTMASTER_AUTH_TOKENS_FILE=" + path); err != nil {
		return err
	}
	b.servers = append(b.servers, c.guarded)
	if c.urls[1], c.open, err = b.serve(); err != nil {
		return err
	}
	b.servers = append(b.servers, c.open)
	b.callers = c
	return nil
}

// tokenCost measures how much more CPU a request with a token takes. The request is refused after all that concerns its caller,
// and before Redis is asked: its limit is out of bounds.
func tokenCost(b *bench) (float64, float64, error) {
	if err := b.startCallers(); err != nil {
		return 0, 0, err
	}
	var spent, calls [2]float64
	for range 4 { // in turns, since the difference is small
		for i, server := range []*exec.Cmd{b.callers.guarded, b.callers.open} {
			before := cpu(server)
			n, err := b.loadOf(connections, func() func() error { return b.refusedCall(i) })
			if err != nil {
				return 0, 0, err
			}
			spent[i] += cpu(server) - before
			calls[i] += n
		}
	}
	return spent[0]/calls[0] - spent[1]/calls[1], 1, nil
}

// refusedCall returns a function that makes that request, over a connection of its own, with a token to the first of the servers.
func (b *bench) refusedCall(server int) func() error {
	client := &fasthttp.Client{MaxConnsPerHost: 1}
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	request.SetRequestURI(b.callers.urls[server] + "/v1/pools/bench/services/plain/ports?limit=0")
	if server == 0 {
		request.Header.Set("Authorization", "Bearer "+b.callers.token)
	}
	return func() error {
		err := client.Do(request, response)
		if err == nil && response.StatusCode() != fasthttp.StatusBadRequest {
			err = fmt.Errorf("a call that is out of bounds got %d", response.StatusCode())
		}
		return err
	}
}
