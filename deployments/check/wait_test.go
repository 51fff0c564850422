package check

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Calls that wait in line get their answer through HAProxy, and those that hang up are out of the line soon. The
// file gives calls that wait 75 s, and others 15 s; here that is 6 s and 1 s.

func TestHAProxyLetsCallsWait(t *testing.T) {
	holds(t, func(t *testing.T, dir string) error {
		short := copied(t, dir, "haproxy.cfg", "timeout server 15s", "timeout server 1s", "timeout server 75s", "timeout server 6s",
			"timeout client 60s", "timeout client 1s")
		server := crowdedServer(t)
		return checkWaiting(server, startHAProxy(t, short, server, freeAddr(t), freeAddr(t)))
	},
		mutant{"haproxy.cfg", "url_param(wait)", "url_param(waits)", "answered with 504"},
	)
}

// The times that the files give to calls that wait are longer than the longest wait, and than any call to Redis after it.
func TestWaitingIsNotCutShort(t *testing.T) {
	help, err := exec.Command(program(t), "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	longest := setting(t, string(help), "PORTMASTER_MAX_WAIT") + 10*setting(t, string(help), "PORTMASTER_REDIS_TIMEOUT")
	holds(t, func(t *testing.T, dir string) error {
		var faults []error
		for file, directive := range map[string]string{"haproxy.cfg": `(?s)backend waiting.*timeout server (\w+)`} {
			found := regexp.MustCompile(directive).FindStringSubmatch(read(t, filepath.Join(dir, file)))
			if found == nil {
				t.Fatalf("%s does not say for how long a call may wait", file)
			}
			if given, err := time.ParseDuration(found[1]); err != nil || given < longest {
				faults = append(faults, fmt.Errorf("%s cuts calls off after %s, and they may take %s: %v", file, found[1], longest, err))
			}
		}
		return errors.Join(faults...)
	},
		mutant{"haproxy.cfg", "timeout server 75s", "timeout server 60s", "haproxy.cfg cuts calls off"},
	)
}

// setting finds the default of a setting in what portmaster serve --help lists.
func setting(t *testing.T, help, name string) time.Duration {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + `\s+(?:.*default )?(\w+)`).FindStringSubmatch(help)
	if found == nil {
		t.Fatalf("there is no %s in:\n%s", name, help)
	}
	d, err := time.ParseDuration(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// copied is a folder with the one file, in which each old is replaced by the new after it.
func copied(t *testing.T, dir, file string, oldNew ...string) string {
	t.Helper()
	text := read(t, filepath.Join(dir, file))
	for i := 0; i < len(oldNew); i += 2 {
		if strings.Count(text, oldNew[i]) != 1 {
			t.Fatalf("%s does not have one %q", file, oldNew[i])
		}
		text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
	}
	folder := t.TempDir()
	write(t, filepath.Join(folder, file), text)
	return folder
}

// crowdedServer starts a server whose only service, "one", has no port left.
func crowdedServer(t *testing.T) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	startServer(t, addr)
	post(t, addr, "/v1/services", `{"name":"one","start":7000,"end":7000}`)
	post(t, addr, "/v1/services/one/ports", `{"name":"web-01"}`)
	return addr
}

func post(t *testing.T, addr, path, body string) {
	t.Helper()
	response, err := http.Post("http://"+addr+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		t.Fatalf("POST %s: status %d", path, response.StatusCode)
	}
}

// checkWaiting lets a call to the balancer wait for 3 s, longer than others are given, and another one hang up.
func checkWaiting(server, balancer string) error {
	url := "http://" + balancer + "/v1/services/one/ports?wait="
	status, err := claim(context.Background(), url+"3")
	if err != nil || status != http.StatusConflict {
		return fmt.Errorf("a call that waits was answered with %d: %v", status, err)
	}
	ctx, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	go claim(ctx, url+"5")
	if err := awaitLine(server, 1, 4*time.Second); err != nil {
		return err
	}
	hangUp()
	return awaitLine(server, 0, 2*time.Second)
}

func claim(ctx context.Context, url string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(`{"name":"web-02"}`))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return response.StatusCode, nil
}

// awaitLine waits until so many calls are in line at the server.
func awaitLine(server string, calls int, patience time.Duration) error {
	var service struct{ Waiting int }
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + server + "/v1/services/one")
		if err != nil {
			return err
		}
		err = json.NewDecoder(response.Body).Decode(&service)
		response.Body.Close()
		if err != nil || service.Waiting == calls {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s there are %d calls still in line, want %d", patience, service.Waiting, calls)
		}
	}
}
