package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"portmaster/config"
)

// environment leaves no settings to a test but the given ones.
func environment(t *testing.T, settings ...string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); strings.HasPrefix(name, config.Prefix+"_") {
			t.Setenv(name, value) // restores it afterwards
			os.Unsetenv(name)
		}
	}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
}

func TestDefaults(t *testing.T) {
	environment(t)
	c, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		got, want any
	}{
		{"HTTPAddr", c.HTTPAddr, "127.0.0.1:8080"},
		{"RedisURL", c.RedisURL, config.Secret("")},
		{"RedisPasswordFile", c.RedisPasswordFile, ""},
		{"KeyPrefix", c.KeyPrefix, "portmaster"},
		{"OfferTTL", c.OfferTTL, 30 * time.Minute},
		{"MaxWait", c.MaxWait, time.Minute},
		{"Quarantine", c.Quarantine, 5 * time.Minute},
		{"ReleaseNeedsSecret", c.ReleaseNeedsSecret, false},
		{"PortMin", c.PortMin, 1024},
		{"PortMax", c.PortMax, 49151},
		{"LogLevel", c.LogLevel.String(), "INFO"},
	} {
		if test.got != test.want {
			t.Errorf("%s is %v, want %v", test.name, test.got, test.want)
		}
	}
}

func TestSettingsAreRead(t *testing.T) {
	environment(t, "PORTMASTER_HTTP_ADDR=[::1]:9000", "PORTMASTER_OFFER_TTL=1500ms", "PORTMASTER_PORT_MIN=1",
		"PORTMASTER_PORT_MAX=65535", "PORTMASTER_KEY_PREFIX=eu:ports", "PORTMASTER_LOG_LEVEL=WARN", "PORTMASTER_LOG_FORMAT=json",
		"PORTMASTER_SHUTDOWN_DELAY=0s", "PORTMASTER_REDIS_URL=redis://redis:6379/3", "PORTMASTER_MAX_WAIT=0s",
		"PORTMASTER_QUARANTINE=24h", "PORTMASTER_RELEASE_NEEDS_SECRET=true")
	c, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(c.HTTPAddr, c.OfferTTL, c.PortMin, c.PortMax, c.KeyPrefix, c.LogLevel, c.LogFormat, c.ShutdownDelay, string(c.RedisURL),
		c.MaxWait, c.Quarantine, c.ReleaseNeedsSecret)
	if want := fmt.Sprintln("[::1]:9000", "1.5s", 1, 65535, "eu:ports", "WARN", "json", "0s", "redis://redis:6379/3", "0s", "24h0m0s", true); got != want {
		t.Errorf("read %s, want %s", got, want)
	}
}

// Each wrong value ends in one line that names its variable and says what is right.
func TestWrongValues(t *testing.T) {
	for _, test := range []struct{ setting, says string }{
		{"PORTMASTER_HTTP_ADDR=", "must be host:port or :port"},
		{"PORTMASTER_HTTP_ADDR=8080", "must be host:port or :port"},
		{"PORTMASTER_HTTP_ADDR=::1:8080", "must be host:port or :port"},
		{"PORTMASTER_HTTP_ADDR=localhost:http", "must be host:port or :port"},
		{"PORTMASTER_HTTP_ADDR=:65536", "must be host:port or :port"},
		{"PORTMASTER_HTTP_ADDR=localhost:", "must be host:port or :port"},
		{"PORTMASTER_AUTH=tokens", `must be empty or none, not "tokens"`},
		{"PORTMASTER_HOSTS=ports.example:8080", `must be names or addresses without a port`},
		{"PORTMASTER_HOSTS=ports.example, [::1]", `must be names or addresses without a port`},
		{"PORTMASTER_HOSTS=,", `must be names or addresses without a port`},
		{"PORTMASTER_RELEASE_NEEDS_SECRET=maybe", "is not a valid boolean: true or false"},
		{"PORTMASTER_REDIS_QUEUE=0", "must be within 1-1048576, not 0"},
		{"PORTMASTER_OPS_ADDR=9090", "must be host:port or :port"},
		{"PORTMASTER_HTTP_READ_TIMEOUT=10", "is not a valid duration, such as 30m"},
		{"PORTMASTER_HTTP_READ_TIMEOUT=0s", "must be within 1ms-1h0m0s, not 0s"},
		{"PORTMASTER_HTTP_WRITE_TIMEOUT=2h", "must be within 1ms-1h0m0s, not 2h0m0s"},
		{"PORTMASTER_HTTP_IDLE_TIMEOUT=-1s", "must be within 1ms-24h0m0s, not -1s"},
		{"PORTMASTER_HTTP_BODY_LIMIT=64k", "is not a valid whole number"},
		{"PORTMASTER_HTTP_BODY_LIMIT=1023", "must be within 1024-1048576, not 1023"},
		{"PORTMASTER_HTTP_CONCURRENCY=0", "must be at least 1, not 0"},
		{"PORTMASTER_REDIS_TIMEOUT=2m", "must be within 1ms-1m0s, not 2m0s"},
		{"PORTMASTER_REDIS_TIMEOUT=0", "must be within 1ms-1m0s, not 0s"},
		{"PORTMASTER_KEY_PREFIX=", "must be parts of A-Z a-z 0-9"},
		{"PORTMASTER_KEY_PREFIX=a{b}", "must be parts of A-Z a-z 0-9"},
		{"PORTMASTER_KEY_PREFIX=a:", "must be parts of A-Z a-z 0-9"},
		{"PORTMASTER_OFFER_TTL=", "is not a valid duration"},
		{"PORTMASTER_OFFER_TTL=soon", "is not a valid duration"},
		{"PORTMASTER_OFFER_TTL=1us", "must be within 1ms-720h0m0s, not 1µs"},
		{"PORTMASTER_MAX_WAIT=60", "is not a valid duration"},
		{"PORTMASTER_MAX_WAIT=-1s", "must be within 0s-10m0s, not -1s"},
		{"PORTMASTER_MAX_WAIT=601s", "must be within 0s-10m0s, not 10m1s"},
		{"PORTMASTER_QUARANTINE=-1ms", "must be within 0s-24h0m0s, not -1ms"},
		{"PORTMASTER_QUARANTINE=25h", "must be within 0s-24h0m0s, not 25h0m0s"},
		{"PORTMASTER_RELEASE_NEEDS_SECRET=yes", "is not a valid boolean: true or false"},
		{"PORTMASTER_MAX_SERVICES=0", "must be within 1-65535, not 0"},
		{"PORTMASTER_MAX_SERVICES=65536", "must be within 1-65535, not 65536"},
		{"PORTMASTER_HISTORY=-1", "must be within 0-1000000, not -1"},
		{"PORTMASTER_HISTORY=1000001", "must be within 0-1000000, not 1000001"},
		{"PORTMASTER_MAX_STREAMS=0", "must be within 1-65536, not 0"},
		{"PORTMASTER_MAX_STREAMS=65537", "must be within 1-65536, not 65537"},
		{"PORTMASTER_MAX_POOLS=0", "must be within 1-100000, not 0"},
		{"PORTMASTER_MAX_POOLS=100001", "must be within 1-100000, not 100001"},
		{"PORTMASTER_PORT_MIN=0", "must be within 1-65535, not 0"},
		{"PORTMASTER_PORT_MIN=1e3", "is not a valid whole number"},
		{"PORTMASTER_PORT_MIN=50000", "must be within"},
		{"PORTMASTER_PORT_MAX=65536", "must be within"},
		{"PORTMASTER_PORT_MAX=1023", "must be within"},
		{"PORTMASTER_LOG_FORMAT=xml", `must be text or json, not "xml"`},
		{"PORTMASTER_LOG_LEVEL=loud", "is not a valid level: debug, info, warn or error"},
		{"PORTMASTER_AUDIT=on", `must be off, refusals or all, not "on"`},
		{"PORTMASTER_AUDIT_FILE=/audit.log", "requires PORTMASTER_AUDIT=all or refusals"},
		{"PORTMASTER_LOG_SLOW_CALL=-1ms", "must be within 0s-1h0m0s, not -1ms"},
		{"PORTMASTER_SHUTDOWN_DELAY=61m", "must be within 0s-1h0m0s, not 1h1m0s"},
		{"PORTMASTER_SHUTDOWN_TIMEOUT=-1s", "must be within 0s-1h0m0s, not -1s"},
	} {
		t.Run(test.setting, func(t *testing.T) {
			environment(t, test.setting)
			_, err := config.Load()
			if err == nil {
				t.Fatal("no error")
			}
			name, _, _ := strings.Cut(test.setting, "=")
			if test.setting == "PORTMASTER_PORT_MIN=50000" {
				name = "PORTMASTER_PORT_MAX" // it is the one that no longer fits
			}
			if text := err.Error(); !strings.HasPrefix(text, name) || !strings.Contains(text, test.says) || strings.Contains(text, "\n") {
				t.Errorf("the error is %q, want %s and %q in one line", text, name, test.says)
			}
		})
	}
}

// What is wrong with the files for Redis shows only beside other settings.
func TestRedisFiles(t *testing.T) {
	const url, overTLS = "PORTMASTER_REDIS_URL=redis://rediss", "PORTMASTER_REDIS_URL=rediss://redis"
	const password, ca = "PORTMASTER_REDIS_PASSWORD_FILE=p", "PORTMASTER_REDIS_CA_FILE=a"
	const cert, key = "PORTMASTER_REDIS_CERT_FILE=c", "PORTMASTER_REDIS_KEY_FILE=k"
	for _, test := range []struct {
		settings []string
		says     string // "" where nothing is wrong
	}{
		{[]string{url, password}, ""},
		{[]string{overTLS, password, ca, cert, key}, ""},
		{[]string{"PORTMASTER_REDIS_URL=rediss+cluster://redis", ca}, ""},
		{[]string{password}, "PORTMASTER_REDIS_PASSWORD_FILE requires PORTMASTER_REDIS_URL"},
		{[]string{ca}, "PORTMASTER_REDIS_CA_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"},
		{[]string{url, ca}, "PORTMASTER_REDIS_CA_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"},
		{[]string{url, cert, key}, "PORTMASTER_REDIS_CERT_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"},
		{[]string{url, key}, "PORTMASTER_REDIS_KEY_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"},
		{[]string{"PORTMASTER_REDIS_URL=unix:///rediss://", ca}, "PORTMASTER_REDIS_CA_FILE requires a PORTMASTER_REDIS_URL that begins with rediss://"},
		{[]string{overTLS, cert}, "PORTMASTER_REDIS_CERT_FILE requires PORTMASTER_REDIS_KEY_FILE"},
		{[]string{overTLS, key}, "PORTMASTER_REDIS_KEY_FILE requires PORTMASTER_REDIS_CERT_FILE"},
	} {
		t.Run(strings.Join(test.settings, " "), func(t *testing.T) {
			environment(t, test.settings...)
			_, err := config.Load()
			if (err == nil) != (test.says == "") || err != nil && err.Error() != test.says {
				t.Errorf("the error is %v, want %q", err, test.says)
			}
		})
	}
}

// A file of callers leaves no open server, and contradicts one that is open on purpose.
func TestOpen(t *testing.T) {
	const none, tokens, oidc = "PORTMASTER_AUTH=none", "PORTMASTER_AUTH_TOKENS_FILE=t", "PORTMASTER_AUTH_OIDC_FILE=o"
	for _, test := range []struct {
		settings  []string
		open, bad bool
	}{
		{nil, true, false},
		{[]string{none, "PORTMASTER_HOSTS=ports.example,10.0.0.7,fd00::7"}, true, false},
		{[]string{none, "PORTMASTER_HOSTS=", "PORTMASTER_AUTH_TOKENS_FILE="}, true, false}, // as of a file for Compose or systemd
		{[]string{tokens}, false, false},
		{[]string{oidc}, false, false},
		{[]string{tokens, oidc}, false, false},
		{[]string{none, tokens}, false, true},
		{[]string{none, oidc}, false, true},
	} {
		environment(t, test.settings...)
		c, err := config.Load()
		if c.Open() != test.open || (err != nil) != test.bad {
			t.Errorf("%q: open is %t, and the error %v", test.settings, c.Open(), err)
		}
	}
}

// A file of TLS is nothing without the others.
func TestTLSFiles(t *testing.T) {
	const cert, key, ca = "PORTMASTER_TLS_CERT_FILE=c", "PORTMASTER_TLS_KEY_FILE=k", "PORTMASTER_TLS_CLIENT_CA_FILE=a"
	for _, test := range []struct {
		settings []string
		says     string // "" if nothing is wrong
	}{
		{[]string{cert, key}, ""},
		{[]string{cert, key, ca}, ""},
		{[]string{cert}, "PORTMASTER_TLS_CERT_FILE requires PORTMASTER_TLS_KEY_FILE"},
		{[]string{cert, ca}, "PORTMASTER_TLS_CERT_FILE requires PORTMASTER_TLS_KEY_FILE"},
		{[]string{key}, "PORTMASTER_TLS_KEY_FILE requires PORTMASTER_TLS_CERT_FILE"},
		{[]string{ca}, "PORTMASTER_TLS_CLIENT_CA_FILE requires PORTMASTER_TLS_CERT_FILE"},
	} {
		environment(t, test.settings...)
		_, err := config.Load()
		if (err == nil) != (test.says == "") || err != nil && err.Error() != test.says {
			t.Errorf("%q: the error is %v, want %q", test.settings, err, test.says)
		}
	}
}

// Every setting has a description, and a default unless it may be empty.
func TestTableAndHelp(t *testing.T) {
	empty := []string{"PORTMASTER_REDIS_URL", "PORTMASTER_AUTH", "PORTMASTER_HOSTS", "PORTMASTER_OPS_ADDR"}
	rows := strings.Split(strings.TrimSpace(config.Table()), "\n")[2:]
	for _, row := range rows {
		cells := strings.Split(row, " | ")
		name := strings.Trim(cells[0], "| `")
		if len(cells) != 3 || !strings.HasPrefix(name, "PORTMASTER_") || len(cells[2]) < 10 {
			t.Errorf("row %q", row)
		}
		if (cells[1] == "") != (slices.Contains(empty, name) || strings.HasSuffix(name, "_FILE")) {
			t.Errorf("%s has the default %q", name, cells[1])
		}
		if !strings.Contains(config.Help(), name+" ") {
			t.Errorf("%s is not in the help", name)
		}
	}
	// A Kubernetes Service called portmaster sets these.
	for _, name := range []string{"PORTMASTER_PORT", "PORTMASTER_SERVICE_HOST", "PORTMASTER_SERVICE_PORT"} {
		if strings.Contains(config.Table(), "`"+name+"`") {
			t.Errorf("%s must not be a setting", name)
		}
	}
}

func TestUnknown(t *testing.T) {
	environment(t, "PORTMASTER_OFER_TTL=1m", "PORTMASTER_PORT=tcp://10.0.0.1:8080", "PORTMASTER_OFFER_TTL=1m", "PORTMASTERS=7")
	got := config.Unknown()
	slices.Sort(got)
	if want := []string{"PORTMASTER_OFER_TTL", "PORTMASTER_PORT"}; !slices.Equal(got, want) {
		t.Errorf("unknown are %q, want %q", got, want)
	}
	if _, err := config.Load(); err != nil {
		t.Errorf("unknown variables are an error: %v", err)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	environment(t, "PORTMASTER_REDIS_URL=redis://user:hunter2@redis:6379")
	c, err := config.Load()
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v %#v %q %x", c, c, c.RedisURL, c.RedisURL), string(asJSON),
	} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("the password is printed: %s", text)
		}
	}
	if string(c.RedisURL) != "redis://user:hunter2@redis:6379" {
		t.Error("the URL itself is not what was set")
	}
}
