package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"portmaster/allocator"
	"portmaster/allocator/storetest"
	"portmaster/config"
)

func TestHelpListsEverySetting(t *testing.T) {
	code, stdout, _ := run(t, []string{"serve", "--help"})
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	settings := regexp.MustCompile("(?m)^\\| `([A-Z_]+)`").FindAllStringSubmatch(config.Table(), -1)
	if len(settings) < 10 {
		t.Fatalf("config.Table() lists %d settings", len(settings))
	}
	for _, setting := range settings {
		if !strings.Contains(stdout, "\n"+setting[1]+" ") {
			t.Errorf("%s is not in the help:\n%s", setting[1], stdout)
		}
	}
}

func TestFailedStartIsOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct{ setting, says string }{ // several settings are separated by spaces
		{"PORTMASTER_OFFER_TTL=soon", `PORTMASTER_OFFER_TTL="soon" is not a valid duration`},
		{"PORTMASTER_PORT_MIN=0", "PORTMASTER_PORT_MIN must be within 1-65535"},
		{"PORTMASTER_HTTP_ADDR=" + taken.Addr().String(), "PORTMASTER_HTTP_ADDR: listen tcp " + taken.Addr().String()},
		{"PORTMASTER_HTTP_ADDR=8080", "PORTMASTER_HTTP_ADDR must be host:port"},
		{"PORTMASTER_OPS_ADDR=" + taken.Addr().String(), "PORTMASTER_OPS_ADDR: listen tcp " + taken.Addr().String()},
		{"PORTMASTER_TLS_CERT_FILE=/nowhere", "PORTMASTER_TLS_CERT_FILE requires PORTMASTER_TLS_KEY_FILE"},
		{"PORTMASTER_TLS_CERT_FILE=/nowhere PORTMASTER_TLS_KEY_FILE=/nowhere", "PORTMASTER_TLS_CERT_FILE: stat /nowhere"},
		{"PORTMASTER_REDIS_URL=localhost:6379", "PORTMASTER_REDIS_URL is not valid"},
		{"PORTMASTER_HTTP_ADDR=:0", "PORTMASTER_HTTP_ADDR=:0 can be reached from other machines: set PORTMASTER_AUTH_TOKENS_FILE"},
		{"PORTMASTER_HTTP_ADDR=0.0.0.0:0", "PORTMASTER_HTTP_ADDR=0.0.0.0:0 can be reached from other machines: set PORTMASTER_AUTH_TOKENS_FILE"},
		{"PORTMASTER_AUTH=tokens", "PORTMASTER_AUTH must be empty or none"},
		{"PORTMASTER_AUTH_TOKENS_FILE=/nowhere", "tokens file /nowhere: "},
		{"PORTMASTER_AUTH_OIDC_FILE=/nowhere", "OIDC file /nowhere: "},
	} {
		t.Run(test.setting, func(t *testing.T) {
			code, _, stderr := run(t, []string{"serve"}, strings.Fields(test.setting)...)
			if code != 1 {
				t.Errorf("exit code %d", code)
			}
			if !strings.HasPrefix(stderr, "portmaster: "+test.says) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("it says:\n%s", stderr)
			}
		})
	}
}

func TestUnknownSettingIsNamed(t *testing.T) {
	p := startProgram(t, "PORTMASTER_OFER_TTL=1m")
	if !strings.Contains(p.log.String(), "level=WARN") || !strings.Contains(p.log.String(), "PORTMASTER_OFER_TTL") {
		t.Errorf("the misspelt setting is not in the log:\n%s", p.log)
	}
}

// Where the password breaks the URL, whatever part of it is taken for something else must not be shown either.
func TestPasswordIsNeverShown(t *testing.T) {
	const password = "hunter2"
	for _, url := range []string{
		"redis://user:hunter2/x@127.0.0.1:1",
		"redis://user:hunter2%zz@127.0.0.1:1",
		"redis://:12/hunter2@127.0.0.1:1/0",
		"hunter2:x@127.0.0.1:1",
		"redis://user:hunter2@127.0.0.1:1/zero",
		"redis://127.0.0.1:1/0?pass=hunter2",
		"redis://127.0.0.1:1/0?max_retries=hunter2",
	} {
		t.Run(url, func(t *testing.T) {
			code, stdout, stderr := run(t, []string{"serve"}, "PORTMASTER_REDIS_URL="+url)
			if code != 1 || !strings.Contains(stderr, "PORTMASTER_REDIS_URL is not valid") {
				t.Errorf("exit code %d: %s", code, stderr)
			}
			if strings.Contains(stdout+stderr, password) {
				t.Errorf("the password is shown: %s", stderr)
			}
		})
	}
	t.Run("Redis away, at level debug", func(t *testing.T) {
		p := startProgram(t, "PORTMASTER_REDIS_URL=redis://user:hunter2@127.0.0.1:1", "PORTMASTER_LOG_LEVEL=debug")
		p.must(t, 503, "GET", "/readyz", "")
		eventually(t, "the log says what the client says, and that the call failed", func() bool {
			return strings.Contains(p.log.String(), `level=DEBUG msg="redis client"`) && strings.Contains(p.log.String(), "call failed")
		})
		if strings.Contains(p.log.String(), password) {
			t.Errorf("the password is shown:\n%s", p.log)
		}
	})
}

func TestServerStartsBeforeRedis(t *testing.T) {
	t.Parallel()
	store, stop, start := storetest.Private(t)
	stop()
	p := startProgram(t, store.Settings()...)
	for range 10 {
		p.must(t, 503, "GET", "/readyz", "")
	}
	p.must(t, 200, "GET", "/livez", "")
	if got := p.must(t, 503, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`); !strings.Contains(got, "nothing was done") {
		t.Error(got)
	}
	start()
	eventually(t, "/readyz is 200", func() bool { return p.status(t, "/readyz") == 200 })
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	for line := range strings.Lines(p.log.String()) {
		if !strings.HasPrefix(line, "time=") || strings.Contains(line, "connection pool") {
			t.Errorf("a line that is not the server's own: %s", line)
		}
	}
}

// The settings reach what they are for.
func TestSettingsOfWants(t *testing.T) {
	p := startProgram(t, "PORTMASTER_MAX_WAIT=50ms", "PORTMASTER_QUARANTINE=0s", "PORTMASTER_RELEASE_NEEDS_SECRET=true")
	p.must(t, 201, "PUT", "/v1/services/django", `{"start":5000,"end":5000}`)
	offer := p.must(t, 201, "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
	secret := volatile[0].pattern.FindString(offer)
	p.must(t, 204, "POST", "/v1/services/django/offers/"+secret+"/reject", `{"reason":"in_use"}`)
	p.must(t, 201, "POST", "/v1/services/django/ports?wait=50ms", `{"name":"web-01"}`) // not in quarantine
	p.must(t, 400, "POST", "/v1/services/django/ports?wait=51ms", `{"name":"web-02"}`)
	p.must(t, 428, "DELETE", "/v1/services/django/ports/5000", "")
}

func TestOffersExpireOnTheEmbeddedStore(t *testing.T) {
	t.Setenv("PORTMASTER_OFFER_TTL", "1s")
	settings, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(settings, newLogger(t.Output(), settings))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ports := allocator.New(store.client, allocator.Options{
		KeyPrefix: settings.KeyPrefix, OfferTTL: settings.OfferTTL, PortMin: 1024, PortMax: 49151, Timeout: patience,
	})
	if _, err := ports.Create(t.Context(), allocator.Caller{}, "default", allocator.Definition{Name: "django", Start: 5000, End: 5000}); err != nil {
		t.Fatal(err)
	}
	first, _, err := ports.Offer(t.Context(), allocator.Caller{}, "default", "django", []allocator.Request{{Name: "web-01"}}, allocator.Wait{})
	if err != nil {
		t.Fatal(err)
	}
	key := "portmaster:{default}:offer:" + first[0].Secret
	if !store.embedded.Exists(key) {
		t.Fatalf("there is no key %s", key)
	}
	if _, _, err := ports.Offer(t.Context(), allocator.Caller{}, "default", "django", []allocator.Request{{Name: "web-01"}}, allocator.Wait{}); err == nil {
		t.Error("web-01 was offered a second port")
	}

	eventually(t, "the key of the offer is gone", func() bool { return !store.embedded.Exists(key) })
	time.Sleep(time.Until(first[0].Expires))
	again, _, err := ports.Offer(t.Context(), allocator.Caller{}, "default", "django", []allocator.Request{{Name: "web-01"}}, allocator.Wait{})
	if err != nil || again[0].Port != first[0].Port {
		t.Errorf("%+v, error %v: want port %d again", again, err, first[0].Port)
	}
}

// slowOffer makes Redis hang for a while, and asks for a port meanwhile. It returns where the answer's status will come.
func slowOffer(t *testing.T, p *program, store storetest.Store, hang time.Duration) <-chan int {
	t.Helper()
	p.must(t, 201, "POST", "/v1/services", `{"name":"django","start":5000,"end":5009}`)
	go store.Admin.Do(context.Background(), "DEBUG", "SLEEP", fmt.Sprint(hang.Seconds()))
	eventually(t, "Redis hangs", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return store.Admin.Ping(ctx).Err() != nil
	})
	answered := make(chan int, 1)
	go func() {
		status, _ := p.call(context.Background(), "POST", "/v1/services/django/offers", `{"name":"web-01"}`)
		answered <- status
	}()
	time.Sleep(100 * time.Millisecond) // it is on its way
	return answered
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	p := startProgram(t, append(store.Settings(), "PORTMASTER_REDIS_TIMEOUT=1m", "PORTMASTER_SHUTDOWN_DELAY=500ms")...)
	answered := slowOffer(t, p, store, 3*time.Second)

	p.signal(t, syscall.SIGTERM)
	eventually(t, "/readyz is 503", func() bool { return p.status(t, "/readyz") == 503 })
	if got := p.status(t, "/livez"); got != 200 {
		t.Errorf("/livez is %d while the server still listens", got)
	}
	eventually(t, "the server listens no more", func() bool {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case status := <-answered:
		t.Fatalf("the slow request ended too early for this test, with status %d", status)
	default:
	}
	if status := <-answered; status != 201 {
		t.Errorf("the request under way got status %d", status)
	}
	if code := p.wait(t).ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestShutdownEndsTheWaiting(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "PORTMASTER_SHUTDOWN_DELAY=1s", "PORTMASTER_SHUTDOWN_TIMEOUT=1m")
	p.must(t, 201, "PUT", "/v1/services/django", `{"start":5000,"end":5000}`)
	p.must(t, 201, "POST", "/v1/services/django/ports", `{"name":"web-01"}`)
	answered := make(chan int, 1)
	go func() {
		status, _ := p.call(context.Background(), "POST", "/v1/services/django/ports?wait=1m", `{"name":"web-02"}`)
		answered <- status
	}()
	eventually(t, "it waits in line", func() bool {
		return strings.Contains(p.must(t, 200, "GET", "/v1/services/django", ""), `"waiting":1`)
	})
	p.signal(t, syscall.SIGTERM)
	if status := <-answered; status != 503 {
		t.Errorf("who waited got status %d", status)
	}
	if code := p.wait(t).ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	store, _, _ := storetest.Private(t)
	p := startProgram(t, append(store.Settings(), "PORTMASTER_REDIS_TIMEOUT=1m",
		"PORTMASTER_SHUTDOWN_DELAY=0s", "PORTMASTER_SHUTDOWN_TIMEOUT=200ms")...)
	slowOffer(t, p, store, 3*time.Second)
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t).ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(p.log.String(), "portmaster: requests were still open after 200ms") {
		t.Error("it does not say why")
	}
}

func TestShutdownDoesNotWaitForIdleConnections(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "PORTMASTER_SHUTDOWN_DELAY=0s", "PORTMASTER_SHUTDOWN_TIMEOUT=1m")
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || response.Close {
		t.Fatalf("the connection is not kept alive: %v, %v", response, err)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.wait(t).ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := startProgram(t, "PORTMASTER_SHUTDOWN_DELAY=10m")
	p.signal(t, syscall.SIGTERM)
	eventually(t, "it says that it stops", func() bool { return strings.Contains(p.log.String(), "stopping") })
	time.Sleep(100 * time.Millisecond)
	p.signal(t, syscall.SIGTERM)
	if status := p.wait(t).Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("it ended with exit code %d", status.ExitStatus())
	}
}

// The log names addresses that a browser on this machine can open.
func TestSite(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8080": "http://127.0.0.1:8080", "[::1]:8080": "http://[::1]:8080", "192.0.2.7:80": "http://192.0.2.7:80",
		"0.0.0.0:8080": "http://localhost:8080", "[::]:8080": "http://localhost:8080",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := siteOf(tcp, false); got != want {
			t.Errorf("%s is at %s, want %s", addr, got, want)
		}
		if got, want := siteOf(tcp, true), strings.Replace(want, "http", "https", 1); got != want {
			t.Errorf("%s with TLS is at %s, want %s", addr, got, want)
		}
	}
}
