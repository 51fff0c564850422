package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator"
)

// bench is what the rows measure: a Redis, a server on it, and ways to call both.
type bench struct {
	program string
	window  time.Duration
	dir     string
	url     string
	redis   *exec.Cmd
	server  *exec.Cmd
	plain   *exec.Cmd // serves the plain route
	client  *redis.Client
	ports   *allocator.Allocator

	plainURL string

	servers []*exec.Cmd // beside that one
	lines   *lines      // nil until calls wait
	callers *callers    // nil until the row of tokens

	forgetful string // the URL of a server without a history; "" until the row of histories

	before string      // another program; "": none
	teams  [2][]string // the URLs of three servers of each program; nil until they are compared
}

func start(program, before string, window time.Duration) (b *bench, err error) {
	b = &bench{program: program, before: before, window: window}
	if b.dir, err = os.MkdirTemp("", "portmaster-ratios-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.stop()
		}
	}()
	redisAddr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(redisAddr)
	b.redis = exec.Command("redis-server", "--bind", host, "--port", port, "--dir", b.dir, "--save", "")
	if err = b.redis.Start(); err != nil {
		return nil, err
	}
	b.client = redis.NewClient(&redis.Options{Addr: redisAddr, Protocol: 2, MaxRetries: -1, ContextTimeoutEnabled: true})
	b.ports = allocator.New(b.client, options)
	if err = b.startPlain(); err != nil {
		return nil, err
	}
	b.url, b.server, err = b.serve()
	return b, err
}

// serve starts a server on the Redis of this bench, with settings beside the usual ones.
func (b *bench) serve(settings ...string) (url string, server *exec.Cmd, err error) {
	return b.serveBy(b.program, settings...)
}

func (b *bench) serveBy(program string, settings ...string) (url string, server *exec.Cmd, err error) {
	addr, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	server = exec.Command(program, "serve")
	server.Stderr = os.Stderr
	server.Env = append(os.Environ(), "PORTMASTER_HTTP_ADDR="+addr, "PORTMASTER_REDIS_URL=redis://"+b.client.Options().Addr,
		"PORTMASTER_LOG_LEVEL=error", "PORTMASTER_SHUTDOWN_DELAY=0s")
	server.Env = append(server.Env, settings...)
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	return "http://" + addr, server, awaitReady("http://" + addr)
}

// options are those of the server, but for the port range: some rows need more ports than a pool has.
var options = allocator.Options{KeyPrefix: "portmaster", OfferTTL: 30 * time.Minute, PortMin: 1024, PortMax: 65535, Timeout: 10 * time.Second, History: 10_000}

func awaitReady(url string) error {
	for range 100 {
		if response, err := http.Get(url + "/readyz"); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the server was not ready within 5 s")
}

func (b *bench) stop() {
	if b.ports != nil {
		b.client.Close()
	}
	for _, p := range append(b.servers, b.server, b.plain, b.redis) {
		if p != nil && p.Process != nil {
			p.Process.Kill()
			p.Wait()
		}
	}
	os.RemoveAll(b.dir)
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// load is what `portmaster bench --output json` prints, as far as it is used here.
type load struct {
	Requests float64        `json:"requests"`
	CyclesPS float64        `json:"cycles_per_s"`
	P50      float64        `json:"p50_ms"`
	P99      float64        `json:"p99_ms"`
	Errors   map[string]int `json:"errors"`
	Offer    struct {
		P50 float64 `json:"p50_ms"`
		P99 float64 `json:"p99_ms"`
	} `json:"offer"`
}

// load runs portmaster bench for one window, on some servers or the usual one.
func (b *bench) load(clients int, urls ...string) (l load, err error) {
	if len(urls) == 0 {
		urls = []string{b.url}
	}
	var stderr bytes.Buffer
	cmd := exec.Command(b.program, "bench", "--url", strings.Join(urls, ","), "--clients", strconv.Itoa(clients),
		"--duration", b.window.String(), "--output", "json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return load{}, fmt.Errorf("portmaster bench: %w: %s", err, stderr.Bytes())
	}
	if err = json.Unmarshal(out, &l); err == nil && len(l.Errors) > 0 {
		err = fmt.Errorf("calls failed: %v", l.Errors)
	}
	return l, err
}

// cpu returns the processor time that a process took so far, in microseconds, user and system. The tick of
// /proc/PID/stat is 10 ms: little in a window under load.
func cpu(p *exec.Cmd) float64 {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) * 10_000
}

// fineCPU returns the same for the main thread, to the nanosecond, for windows that are short.
func fineCPU(p *exec.Cmd) float64 {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", p.Process.Pid))
	ns, _ := strconv.ParseFloat(string(bytes.Fields(stat)[0]), 64)
	return ns / 1000
}

var background = context.Background()
