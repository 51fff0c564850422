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
	embedded *miniredis.Miniredis // nil for a real Redis
	stop     chan struct{}        // ends the embedded store's clock
}

// openStore connects to the Redis of the settings. If they name none, it starts a store inside the process. It does not
// wait for Redis: greet finds out whether it answers.
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

// connect returns a client for any kind of Redis. It fails fast, never repeats a script that may have run, and sends
// commands with keys to masters only.
func connect(options *redis.UniversalOptions, settings config.Config) redis.UniversalClient {
	options.Protocol = 2 // nothing of version 3 is used, and looking for its push messages costs time in each call
	options.MaxRetries = -1
	options.MaxRedirects = 3 // in a Cluster; a command that is redirected did not run
	options.DialerRetries = 1
	options.DialTimeout = settings.RedisTimeout
	options.ReadTimeout = settings.RedisTimeout
	options.WriteTimeout = settings.RedisTimeout
	options.PoolTimeout = settings.RedisTimeout
	options.ContextTimeoutEnabled = true
	options.DisableIdentity = true // an ACL file that Redis 7.0 can read cannot allow CLIENT SETINFO
	if options.TLSConfig != nil {
		options.Dialer = dialTLS(options.TLSConfig, settings.RedisTimeout)
	}
	switch kind(options) {
	case kindCluster:
		cluster := options.Cluster()
		cluster.DisableRoutingPolicies = true // they call COMMAND, and serve commands that are never sent here
		// No message announces the successor of a dead master: the other nodes have to be asked.
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

// clientLog logs the lines of go-redis, one for each connection that fails, at debug level. The server itself logs an
// outage at most once a second.
type clientLog struct{ log *slog.Logger }

// Printf is called by go-redis.
func (c clientLog) Printf(ctx context.Context, format string, args ...any) {
	if c.log.Enabled(ctx, slog.LevelDebug) {
		c.log.DebugContext(ctx, "redis client", slog.String("says", fmt.Sprintf(format, args...)))
	}
}

// Close ends the connections, and the embedded store with its data.
func (s *store) Close() {
	s.client.Close()
	if s.embedded != nil {
		close(s.stop)
		s.embedded.Close()
	}
}
