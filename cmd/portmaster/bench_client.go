package main

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"
)

// portHolders notices a port that two clients hold at the same time.
type portHolders struct {
	held  [1 << 16]atomic.Bool
	twice atomic.Int64
}

func (h *portHolders) take(port int) {
	if h.held[port].Swap(true) {
		h.twice.Add(1)
	}
}

func (h *portHolders) leave(port int) { h.held[port].Store(false) }

// benchClient is one caller with one connection. It reuses buffers, so that it uses little CPU itself.
type benchClient struct {
	http      *fasthttp.HostClient
	request   *fasthttp.Request
	response  *fasthttp.Response
	service   string // its URL
	held      *portHolders
	latencies [callKinds]*hdrhistogram.Histogram
	errors    map[string]int
}

// newLatencies returns a histogram from a microsecond to a minute, with three significant digits.
func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}

func newBenchClient(server, pool, service string, held *portHolders) *benchClient {
	c := &benchClient{
		request:  fasthttp.AcquireRequest(),
		response: fasthttp.AcquireResponse(),
		service:  server + "/v1/pools/" + pool + "/services/" + service,
		held:     held,
		errors:   map[string]int{},
	}
	for kind := range c.latencies {
		c.latencies[kind] = newLatencies()
	}
	c.request.SetRequestURI(c.service)
	uri := c.request.URI()
	c.http = &fasthttp.HostClient{
		Addr:                      fasthttp.AddMissingPort(string(uri.Host()), string(uri.Scheme()) == "https"),
		IsTLS:                     string(uri.Scheme()) == "https",
		MaxConns:                  1,
		MaxIdemponentCallAttempts: 1,
		ReadTimeout:               30 * time.Second,
		WriteTimeout:              30 * time.Second,
	}
	return c
}

// run repeats the cycle until ctx is done. A cycle that has begun is finished, so that no port stays behind.
func (c *benchClient) run(ctx context.Context, name string, cycles *atomic.Int64) {
	holder := name
	for n := 0; ctx.Err() == nil; n++ {
		if c.cycle(holder) {
			cycles.Add(1)
		} else {
			holder = name + "-" + strconv.Itoa(n) // the old name may have a port whose response was lost
		}
	}
}

func (c *benchClient) cycle(holder string) bool {
	if !c.measured(callOffer, "POST", c.service+"/offers", `{"name":"`+holder+`"}`, fasthttp.StatusCreated) {
		return false
	}
	secret := between(c.response.Body(), `"secret":"`, '"')
	port, err := strconv.Atoi(between(c.response.Body(), `"port":`, ','))
	if err != nil || port < benchStart || port > benchEnd {
		c.errors["an offer without a port"]++
		return false
	}
	c.held.take(port)
	if !c.measured(callAccept, "POST", c.service+"/offers/"+secret+"/accept", "", fasthttp.StatusCreated) {
		c.held.leave(port) // first: once it is given back, another client may get it
		c.giveBack(secret, port)
		return false
	}
	fence, _, _ := strings.Cut(between(c.response.Body(), `"fence":`, '}'), ",")
	c.request.Header.Set(fasthttp.HeaderIfMatch, `"`+fence+`"`) // a server may require a proof, and this one costs Redis nothing
	c.held.leave(port)                                          // from the release on another client may have it
	released := c.measured(callRelease, "DELETE", c.service+"/ports/"+strconv.Itoa(port), "", fasthttp.StatusNoContent)
	c.request.Header.Del(fasthttp.HeaderIfMatch)
	if !released {
		c.giveBack(secret, port)
	}
	return released
}

// giveBack tries to free a port that may be on offer, allocated or free. Otherwise the service could not be removed.
func (c *benchClient) giveBack(secret string, port int) {
	_, _ = c.call("POST", c.service+"/offers/"+secret+"/reject", "")
	c.request.Header.Set("Portmaster-Secret", secret)
	_, _ = c.call("DELETE", c.service+"/ports/"+strconv.Itoa(port), "")
	c.request.Header.Del("Portmaster-Secret")
}

// measured makes a call and records its duration. It counts any status but the expected one as an error.
func (c *benchClient) measured(kind int, method, address, body string, expected int) bool {
	start := time.Now()
	status, err := c.call(method, address, body)
	_ = c.latencies[kind].RecordValue(int64(time.Since(start)))
	switch {
	case err != nil:
		c.errors[err.Error()]++
	case status != expected:
		code := between(c.response.Body(), `"code":"`, '"')
		c.errors[strconv.Itoa(status)+" "+code]++
	default:
		return true
	}
	return false
}

func (c *benchClient) call(method, address, body string) (status int, err error) {
	c.request.Header.SetMethod(method)
	c.request.SetRequestURI(address)
	c.request.SetBodyString(body)
	if body != "" {
		c.request.Header.SetContentType("application/json")
	} else {
		c.request.Header.Del(fasthttp.HeaderContentType)
	}
	err = c.http.Do(c.request, c.response)
	return c.response.StatusCode(), err
}

// between returns the part of text after a mark and before an end; "" if there is none. The bench reads responses in this
// way because a JSON decoder would cost as much as the rest of a call.
func between(text []byte, mark string, end byte) string {
	_, rest, found := bytes.Cut(text, []byte(mark))
	if i := bytes.IndexByte(rest, end); found && i >= 0 {
		return string(rest[:i])
	}
	return ""
}
