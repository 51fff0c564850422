package main

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"portmaster/allocator"
)

// waitingLines is how many lines there are, on three servers.
const waitingLines = 1000

// lines is a call in each of the lines, on servers of their own.
type lines struct {
	urls     []string
	client   fasthttp.Client
	answered []chan answered
	round    int
}

type answered struct {
	status int
	at     time.Time
	err    error
}

// waitInLines lets a call wait in each line, unless it does already. The one port of each service is taken.
func (b *bench) waitInLines() error {
	if b.lines == nil {
		l := &lines{client: fasthttp.Client{MaxConnsPerHost: waitingLines}}
		for range 3 {
			url, server, err := b.serve("PORTMASTER_MAX_WAIT=10m")
			if server != nil {
				b.servers = append(b.servers, server)
			}
			if err != nil {
				return err
			}
			l.urls = append(l.urls, url)
		}
		err := concurrently(waitingLines, func(i int) error {
			_, err := b.ports.Create(background, allocator.Caller{}, "lines", allocator.Definition{Name: lineOf(i), Start: 2000 + i, End: 2000 + i})
			if err == nil {
				_, _, err = b.ports.Claim(background, allocator.Caller{}, "lines", lineOf(i), []allocator.Request{{Name: "round-0"}}, allocator.Wait{})
			}
			return err
		})
		if err != nil {
			return err
		}
		b.lines = l
	}
	l := b.lines
	if l.answered != nil {
		return nil
	}
	l.round++
	l.answered = make([]chan answered, waitingLines)
	for i := range l.answered {
		l.answered[i] = make(chan answered, 1)
		go func(to chan<- answered) {
			status, err := l.call(i, "POST", "?wait=10m", `{"name":"round-`+strconv.Itoa(l.round)+`"}`)
			to <- answered{status, time.Now(), err}
		}(l.answered[i])
	}
	for range 200 {
		time.Sleep(50 * time.Millisecond)
		waiting := 0
		services, _, err := b.ports.Services(background, "lines", "", waitingLines)
		if err != nil {
			return err
		}
		for _, s := range services {
			waiting += s.Waiting
		}
		if waiting == waitingLines {
			return nil
		}
	}
	return fmt.Errorf("%d calls did not wait within 10 s", waitingLines)
}

func lineOf(i int) string { return "line-" + strconv.Itoa(i) }

// call makes a call about the ports of a line's service, to a server that goes by n.
func (l *lines) call(n int, method, path, body string) (status int, err error) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(request)
	defer fasthttp.ReleaseResponse(response)
	request.SetRequestURI(l.urls[n%len(l.urls)] + "/v1/pools/lines/services/" + lineOf(n%waitingLines) + "/ports" + path)
	request.Header.SetMethod(method)
	if body != "" {
		request.Header.SetContentType("application/json")
		request.SetBodyString(body)
	}
	err = l.client.Do(request, response)
	return response.StatusCode(), err
}

// waitingCPU measures what part of a core Redis takes while calls wait and nothing happens, in percent.
func waitingCPU(b *bench) (float64, float64, error) {
	if err := b.waitInLines(); err != nil {
		return 0, 0, err
	}
	time.Sleep(time.Second) // what the calls that came last have left to be done is no waiting
	began, before := time.Now(), fineCPU(b.redis)
	time.Sleep(2 * b.window)
	return 100 * (fineCPU(b.redis) - before) / float64(time.Since(began).Microseconds()), 1, nil
}

// handOver compares how long it takes from the release of a port until the next in line has it, whose call is on another server,
// with a release and a claim that wait for nobody.
func handOver(b *bench) (float64, float64, error) {
	if err := b.waitInLines(); err != nil {
		return 0, 0, err
	}
	l := b.lines
	held, next := "/round-"+strconv.Itoa(l.round-1), "/round-"+strconv.Itoa(l.round)
	var over, alone []float64
	for i, waits := range l.answered {
		began := time.Now()
		if status, err := l.call(waitingLines+i, "DELETE", held, ""); err != nil || status != http.StatusNoContent {
			return 0, 0, fmt.Errorf("a release: %d, %w", status, err)
		}
		a := <-waits
		if a.err != nil || a.status != http.StatusCreated {
			return 0, 0, fmt.Errorf("a call that waited: %d, %w", a.status, a.err)
		}
		over = append(over, float64(a.at.Sub(began).Microseconds())/1000)
		began = time.Now()
		if status, err := l.call(i, "DELETE", next, ""); err != nil || status != http.StatusNoContent {
			return 0, 0, fmt.Errorf("a release: %d, %w", status, err)
		}
		if status, err := l.call(i, "POST", "", `{"name":"`+next[1:]+`"}`); err != nil || status != http.StatusCreated {
			return 0, 0, fmt.Errorf("a claim: %d, %w", status, err)
		}
		alone = append(alone, float64(time.Since(began).Microseconds())/1000)
	}
	l.answered = nil
	return p99(over), p99(alone), nil
}

func p99(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)*99/100]
}
