package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	ready := startProgram(t)
	withoutRedis := startProgram(t, "PORTMASTER_REDIS_URL=redis://127.0.0.1:1")
	another := httptest.NewServer(http.NotFoundHandler())
	defer another.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()

	for name, test := range map[string]struct {
		addr, setting string
		code          int
		says          string // after the address
	}{
		"ready":                {addr: ready.addr, says: " is ready"},
		"ready, on every host": {addr: strings.TrimPrefix(ready.addr, "127.0.0.1"), says: " is ready"},
		"Redis is away":        {addr: withoutRedis.addr, code: 1, says: " is not ready: Redis "},
		"another server":       {addr: another.Listener.Addr().String(), code: 1, says: " is not ready: /readyz returned 404 Not Found"},
		"no answer":            {addr: mute.Addr().String(), setting: "PORTMASTER_REDIS_TIMEOUT=1ms", code: 1, says: " is not ready: context deadline exceeded"},
		"nobody listens":       {addr: gone.Addr().String(), code: 1, says: " is not ready: dial tcp"},
		"a setting is wrong":   {addr: "8080", code: 1, says: "PORTMASTER_HTTP_ADDR must be host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, []string{"healthcheck"}, "PORTMASTER_HTTP_ADDR="+test.addr, test.setting)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			said := stdout + stderr
			if !strings.Contains(said, test.says) || strings.Count(said, "\n") != 1 || (stderr == "") != (code == 0) {
				t.Errorf("it says %q, want one line with %q", said, test.says)
			}
		})
	}
}

func TestDialAddr(t *testing.T) {
	for addr, want := range map[string]string{
		":8080":            "127.0.0.1:8080",
		"0.0.0.0:8080":     "127.0.0.1:8080",
		"[::]:8080":        "[::1]:8080",
		"10.0.0.7:8080":    "10.0.0.7:8080",
		"[fd00::7]:8080":   "[fd00::7]:8080",
		"ports.local:8080": "ports.local:8080",
	} {
		if got := dialAddr(addr); got != want {
			t.Errorf("%s is asked at %s, want %s", addr, got, want)
		}
	}
}
