package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

func TestRedisURL(t *testing.T) {
	for _, test := range []struct{ url, want string }{
		{"redis://redis", "one node [redis:6379] db 0 as  with "},
		{"redis://:pass@[::1]:1/2", "one node [[::1]:1] db 2 as  with pass"},
		{"redis://user:p%40ss%2F%25@redis:1/2?pool_size=7", "one node [redis:1] db 2 as user with p@ss/%"},
		{"rediss://user@redis", "one node [redis:6379] db 0 as user with , TLS with redis"},
		{"unix://user:pass@/run/redis.sock?db=3", "one node [/run/redis.sock] db 3 as user with pass"},
		{"redis://s1?master_name=m", "sentinel [s1:6379] db 0 as  with , Sentinel as  with "},
		{"redis://su:sp@s1:1/2?master_name=m&addr=s2:2&username=user&password=p%26", "sentinel [s1:1 s2:2] db 2 as user with p&, Sentinel as su with sp"},
		{"rediss://s1:1?master_name=m", "sentinel [s1:1] db 0 as  with , Sentinel as  with , TLS with s1"},
		{"redis+cluster://user:pass@c1:1", "cluster [c1:1] db 0 as user with pass"},
		{"redis+cluster://c1:1/0?addr=c2:2&addr=c3:3", "cluster [c1:1 c2:2 c3:3] db 0 as  with "},
		{"rediss+cluster://c1:1", "cluster [c1:1] db 0 as  with , TLS with c1"},
		{"redis://c1:1?addr=c2:2", "cluster [c1:1 c2:2] db 0 as  with "},
	} {
		o, err := parseRedisURL(test.url)
		if err != nil {
			t.Errorf("%s: %v", test.url, err)
			continue
		}
		got := fmt.Sprintf("%s %v db %d as %s with %s", kind(o), o.Addrs, o.DB, o.Username, o.Password)
		if o.MasterName != "" {
			got += fmt.Sprintf(", Sentinel as %s with %s", o.SentinelUsername, o.SentinelPassword)
		}
		if o.TLSConfig != nil {
			got += ", TLS with " + o.TLSConfig.ServerName
		}
		if got != test.want {
			t.Errorf("%s is\n%s, want\n%s", test.url, got, test.want)
		}
	}
}

func TestWrongRedisURL(t *testing.T) {
	for _, url := range []string{
		"", "redis", "redis:6379", "localhost:6379", "http://redis", "redis:host", "redis://host#1", "redis://:123#x@host", "redis://host/x", "redis://host/-1",
		"redis://host/1/2", "redis://host?nonsense=1", "redis://host?max_retries=x", "redis://host?db=%zz", "redis://host?db=1;pool_size=2",
		"redis://host?pool_size=-1", "redis://host?pool_size=99999999", "redis://host?min_idle_conns=-1",
		"unix://", "unix://?db=1", "unix+cluster:///run/redis.sock", "unix:///run/redis.sock?master_name=m",
		"redis://host?master_name=", "redis://host?master_name=m&nonsense=1", "redis://host?master_name=m&addr=h", "redis+cluster://host?master_name=m",
		"redis+cluster://host/1", "redis+cluster://host?db=1", "redis+cluster://host?addr=h", "redis://host?addr=h", "redis+sentinel://host",
	} {
		if o, err := parseRedisURL(url); err != errURL {
			t.Errorf("%q is %+v, error %v", url, o, err)
		}
	}
}

// No option of a URL decides how often a call is sent, where to, or how long it may take; those of the pool do count.
func TestRedisURLDoesNotDecideHowCallsAreSent(t *testing.T) {
	const pool = "client_name=me&pool_size=7&min_idle_conns=0&max_idle_conns=3&max_active_conns=9&conn_max_idle_time=5m&conn_max_lifetime=1h"
	const retries = "&protocol=3&max_retries=5&dial_timeout=1h&read_timeout=1h&write_timeout=1h&pool_timeout=1h&min_retry_backoff=1h"
	settings := config.Config{RedisTimeout: 800 * time.Millisecond}
	for _, url := range []string{
		"rediss://127.0.0.1:1?skip_verify=true&" + pool + retries,
		"rediss://127.0.0.1:1?master_name=m&skip_verify=true&dialer_retries=5&replica_only=true&route_randomly=true&context_timeout_enabled=false&" + pool + retries,
		"rediss+cluster://127.0.0.1:1?max_redirects=9&dialer_retries=5&read_only=true&route_by_latency=true&route_randomly=true&" + pool + retries,
	} {
		if o, err := parseRedisURL(url); err != nil || o.ReadOnly || o.RouteByLatency || o.RouteRandomly {
			t.Errorf("%s: replicas are read, or error %v", url, err)
		}
		settings.RedisURL = config.Secret(url)
		store, err := openStore(settings, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		defer store.Close()
		var got string
		common := func(protocol, retries, dials int, timeouts ...time.Duration) {
			got = fmt.Sprintln("protocol", protocol, "retries", retries, "dials", dials, "timeouts", timeouts)
		}
		switch client := store.client.(type) {
		case *redis.Client: // with a Sentinel, too
			o := client.Options()
			common(o.Protocol, o.MaxRetries, o.DialerRetries, o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout)
			got += fmt.Sprintln(o.ContextTimeoutEnabled, o.DisableIdentity, o.TLSConfig.InsecureSkipVerify)
			got += fmt.Sprintln(o.ClientName, o.PoolSize, o.MaxIdleConns, o.MaxActiveConns, o.ConnMaxIdleTime, o.ConnMaxLifetime)
		case *redis.ClusterClient:
			o := client.Options()
			common(o.Protocol, 1+o.MaxRetries, o.DialerRetries, o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout)
			got += fmt.Sprintln(o.ContextTimeoutEnabled, o.DisableIdentity, o.TLSConfig.InsecureSkipVerify)
			got += fmt.Sprintln(o.ClientName, o.PoolSize, o.MaxIdleConns, o.MaxActiveConns, o.ConnMaxIdleTime, o.ConnMaxLifetime)
			if o.MaxRedirects != 3 {
				t.Errorf("%s: %d redirects", url, o.MaxRedirects)
			}
		}
		if want := strings.Join([]string{"protocol 2 retries 0 dials 1 timeouts [800ms 800ms 800ms 800ms]", "true true false", "me 7 3 9 5m0s 1h0m0s", ""}, "\n"); got != want {
			t.Errorf("%s: the client has\n%s, want\n%s", url, got, want)
		}
	}
}
