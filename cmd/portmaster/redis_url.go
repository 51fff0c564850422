package main

import (
	"errors"
	"net/url"
	"strings"

	"github.com/redis/go-redis/v9"

	"portmaster/config"
)

// The kinds of Redis.
const (
	kindNode     = "one node"
	kindSentinel = "sentinel"
	kindCluster  = "cluster"
)

func kind(options *redis.UniversalOptions) string {
	switch {
	case options.IsClusterMode:
		return kindCluster
	case options.MasterName != "":
		return kindSentinel
	}
	return kindNode
}

// errURL contains neither the URL nor the parser's message: a password with a slash may be the part that does not parse.
var errURL = errors.New(config.Prefix + "_REDIS_URL is not valid: it must be redis://[user:password@]host:port[/db], " +
	"rediss://..., unix:///path, redis://sentinel:port?master_name=name or redis+cluster://host:port; " +
	"percent-encode the password, and use only options that the client knows")

// parseRedisURL reads where Redis is, how to log in, and the options for the connection pool. Options for retries, routing
// and timeouts are ignored.
func parseRedisURL(text string) (*redis.UniversalOptions, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return nil, errURL
	}
	query, err := url.ParseQuery(u.RawQuery) // go-redis ignores what does not parse
	if err != nil {
		return nil, errURL
	}
	var cluster bool
	u.Scheme, cluster = strings.CutSuffix(u.Scheme, "+cluster")
	var options *redis.UniversalOptions
	switch {
	case cluster, query.Has("addr") && !query.Has("master_name"):
		options, err = clusterOptions(u)
	case query.Has("master_name"):
		options, err = sentinelOptions(u)
	default:
		options, err = nodeOptions(u)
	}
	if err != nil || options.DB < 0 {
		return nil, errURL
	}
	for _, n := range []int{options.PoolSize, options.MinIdleConns, options.MaxIdleConns, options.MaxActiveConns} {
		if n < 0 || n > 1<<16 { // go-redis panics
			return nil, errURL
		}
	}
	return options, nil
}

func nodeOptions(u *url.URL) (*redis.UniversalOptions, error) {
	o, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns,
		MaxActiveConns: o.MaxActiveConns, ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}

func sentinelOptions(u *url.URL) (*redis.UniversalOptions, error) {
	o, err := redis.ParseFailoverURL(u.String())
	if err != nil {
		return nil, err
	}
	if o.MasterName == "" {
		return nil, errURL
	}
	return &redis.UniversalOptions{
		Addrs: o.SentinelAddrs, SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword,
		MasterName: o.MasterName, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns,
		MaxActiveConns: o.MaxActiveConns, ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}

func clusterOptions(u *url.URL) (*redis.UniversalOptions, error) {
	if path := strings.Trim(u.Path, "/"); path != "" && path != "0" { // a Cluster has one database
		return nil, errURL
	}
	o, err := redis.ParseClusterURL(u.String())
	if err != nil {
		return nil, err
	}
	return &redis.UniversalOptions{
		IsClusterMode: true, Addrs: o.Addrs, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		ClientName: o.ClientName, PoolSize: o.PoolSize, MinIdleConns: o.MinIdleConns, MaxIdleConns: o.MaxIdleConns,
		MaxActiveConns: o.MaxActiveConns, ConnMaxIdleTime: o.ConnMaxIdleTime, ConnMaxLifetime: o.ConnMaxLifetime,
	}, nil
}
