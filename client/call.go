package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer  = 4 << 20 // bytes; a page of 1,000 services with the longest descriptions has 2 MB
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// call is one call of the API: a request that may be sent several times.
type call struct {
	method  string
	path    string // with its query, if it has one; below the address
	body    any    // nil: none
	header  [2]string
	answer  any           // where the JSON of the answer goes; nil: 204 is expected, which has none
	once    bool          // it must not be repeated unless it is known that nothing was done
	timeout time.Duration // of one attempt, its wait not counted; 0: that of the options
	wait    *waiting      // nil: it does not wait
}

// reply is what is known of a call that succeeded, beside its answer.
type reply struct {
	first   time.Time // when the first attempt was sent
	sent    time.Time // when the last attempt was sent, which is the one that succeeded
	created bool      // by that attempt: the status is 201
	link    string    // the header
	doubt   bool      // an earlier attempt may have been the one that did it; also told of a call that failed
}

// began returns no later a time than that at which a lease began which only the attempt that made it began.
func (r reply) began() time.Time {
	if r.created {
		return r.sent
	}
	return r.first
}

// do makes a call until it succeeds, fails, or its time is over.
func (c *Client) do(ctx context.Context, call call) (r reply, err error) {
	if ctx.Err() != nil {
		return r, context.Cause(ctx)
	}
	r.first = time.Now()
	over := r.first.Add(call.wait.longest() + max(c.options.RetryFor, 0))
	if deadline, ok := ctx.Deadline(); ok {
		over = deadline
	}
	for pauses := 0; ; {
		r.sent = time.Now()
		attempt := c.attempt(ctx, call, &r)
		if attempt == nil {
			return r, nil
		}
		again, doubt := attempt.repeatable()
		r.doubt = r.doubt || doubt
		if ctx.Err() != nil {
			return r, ended(ctx, attempt)
		}
		if call.wait.goesOn(attempt, r.sent) {
			continue
		}
		var pause time.Duration
		switch {
		case again && (!doubt || !call.once):
			pause = attempt.RetryAfter + rand.N(min(firstPause<<min(pauses, 8), maxPause))
			pauses++
		case errors.Is(attempt, ErrTooManyWaiting) && call.wait.left() > 0:
			pause = min(attempt.RetryAfter+rand.N(maxPause), call.wait.left()) // and once more at the end
		default:
			return r, attempt
		}
		if time.Until(over) < pause {
			return r, attempt
		}
		if c.options.OnRetry != nil {
			c.options.OnRetry(attempt, pause)
		}
		if !sleep(ctx, pause) {
			return r, ended(ctx, attempt)
		}
	}
}

// ended is the error of a call whose context ended.
func ended(ctx context.Context, last *Error) error {
	if errors.Is(last, context.Cause(ctx)) {
		return last
	}
	return fmt.Errorf("%w; the last attempt: %w", context.Cause(ctx), last)
}

// sleep pauses, and reports whether ctx goes on.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// attempt sends the request once.
func (c *Client) attempt(ctx context.Context, call call, r *reply) *Error {
	timeout := call.timeout
	if timeout == 0 {
		timeout = c.options.Timeout
	}
	address := c.base + call.path
	if wait := call.wait.next(); wait > 0 {
		address += "?wait=" + strconv.FormatFloat(inSeconds(wait), 'f', -1, 64)
		timeout += wait
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()
	request, err := newRequest(ctx, call, address)
	if err != nil {
		return &Error{Code: ErrInvalid.Code, Detail: "the request was not sent", cause: err}
	}
	if err := c.authorize(request); err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return unanswered(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return &Error{Code: ErrOutcomeUnknown.Code, Status: response.StatusCode, Detail: "the answer broke off", cause: err}
	case response.StatusCode >= 300:
		return problemOf(response.StatusCode, response.Header, body)
	}
	r.link, r.created = response.Header.Get("Link"), response.StatusCode == http.StatusCreated
	return call.read(response, body)
}

func newRequest(ctx context.Context, call call, address string) (*http.Request, error) {
	var body io.Reader = http.NoBody
	if call.body != nil {
		text, err := json.Marshal(call.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, call.method, address, body)
	if err != nil {
		return nil, err
	}
	if call.body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if call.header[0] != "" {
		request.Header.Set(call.header[0], call.header[1])
	}
	request.Header.Set("User-Agent", "portmaster-client")
	return request, nil
}

// read reads the answer of a call that succeeded, if that is what it is: a gateway may answer 200 for its own login page.
func (c call) read(response *http.Response, body []byte) *Error {
	strange := &Error{Status: response.StatusCode, RequestID: response.Header.Get("X-Request-ID")}
	if c.answer == nil {
		if response.StatusCode == http.StatusNoContent {
			return nil
		}
		strange.Detail = "the server answered " + response.Status + ", and not as Portmaster does"
		return strange
	}
	if len(body) > maxAnswer || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		strange.Detail = "the answer is not Portmaster's"
		return strange
	}
	if err := json.Unmarshal(body, c.answer); err != nil {
		strange.Detail, strange.cause = "the answer is not Portmaster's", err
		if body = bytes.TrimSpace(body); len(body) == 0 || !strings.ContainsRune("}]", rune(body[len(body)-1])) {
			strange.Code, strange.Detail = ErrOutcomeUnknown.Code, "the answer broke off" // where a proxy does not say how long it is
		}
		return strange
	}
	return nil
}

// unanswered is the error of a request without an answer. Unless it did not come to a connection, it may have been done.
func unanswered(err error) *Error {
	if inner := errors.Unwrap(err); inner != nil {
		err = inner // without the URL, which may contain a secret
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		name, ok := errors.AsType[*net.DNSError](err)
		return &Error{Code: ErrUnavailable.Code, Detail: "the server cannot be reached", cause: err, final: ok && name.IsNotFound}
	}
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	if certificate || plain || strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return &Error{Code: ErrUnavailable.Code, Detail: "there is no secure connection to the server", cause: err, final: true}
	}
	return &Error{Code: ErrOutcomeUnknown.Code, Detail: "there was no answer", cause: err}
}
