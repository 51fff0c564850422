package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// store is the Redis that a server works on.
type store struct {
	client   redis.UniversalClient
	embedded *miniredis.Miniredis // nil where the Redis is a real one
	stop     chan struct{}        // ends the embedded store's clock
}

// openStore connects to the Redis of the settings, or starts one inside the process where they name none. It does not
// wait for Redis: greet tells whether it is there.
func openStore(settings config.Config, log *slog.Logger) (*store, error) {
	redis.SetLogger(clientLog{log})
	if settings.RedisURL == "" {
		return embeddedStore(settings, log)
	}
	options, err := parseRedisURL(string(settings.RedisURL))
	if err != nil {
		return nil, err
	}
	if err := addCredentials(options, settings); err != nil {
		return nil, err
	}
	log.Info("state is kept in Redis", slog.String("kind", kind(options)),
		slog.String("address", strings.Join(options.Addrs, " ")), slog.Int("db", options.DB))
	return &store{client: connect(options, settings)}, nil
}

// connect returns the client of any kind of Redis: it fails fast, never repeats a script that may have run, and sends what
// has keys to masters only.
func connect(options *redis.UniversalOptions, settings config.Config) redis.UniversalClient {
	options.Protocol = 2 // nothing of version 3 is used here, and looking for its push messages costs each call
	options.MaxRetries = -1
	options.MaxRedirects = 3 // in a Cluster; a command that is redirected did not run
	options.DialerRetries = 1
	options.DialTimeout = settings.RedisTimeout
	options.ReadTimeout = settings.RedisTimeout
	options.WriteTimeout = settings.RedisTimeout
	options.PoolTimeout = settings.RedisTimeout
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true // CLIENT SETINFO cannot be allowed in an ACL file that Redis 7.0 reads, too
	if options.TLSConfig != nil {
		options.Dialer = dialTLS(options.TLSConfig, settings.RedisTimeout)
	}
	switch kind(options) {
	case kindCluster:
		cluster := options.Cluster()
		cluster.DisableRoutingPolicies = true // they ask for COMMAND, and are for commands that are not sent here
		// Nobody tells who follows a master that died: the other nodes have to be asked.
		cluster.ClusterStateReloadInterval = time.Second
		client := redis.NewClusterClient(cluster)
		client.OnNewNode(func(node *redis.Client) { node.AddHook(dialing{}) })
		return client
	case kindSentinel:
		client := redis.NewFailoverClient(options.Failover())
		client.AddHook(dialing{})
		return client
	default:
		client := redis.NewClient(options.Simple())
		client.AddHook(dialing{})
		return client
	}
}

// clientLog takes the lines that go-redis writes by itself, one for each connection that fails. Our own log tells of an
// outage once a second at most; these are for who debugs.
type clientLog struct{ log *slog.Logger }

// Printf is called by go-redis.
func (c clientLog) Printf(ctx context.Context, format string, args ...any) {
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.DebugContext(ctx, "redis client", slog.String("says", fmt.Sprintf(format, args...)))
	}
}

// Close ends the connections, and the embedded store with all it holds.
func (s *store) Close() {
	s.client.Close()
	if s.embedded != nil {
		close(s.stop)
		s.embedded.Close()
	}
}
