// Package config reads the settings of the server from the environment. The defaults and descriptions in the tags of Config
// are the documentation: `portmaster serve --help` and the table in README.md are generated from them.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"
)

// Prefix begins the name of every variable.
const Prefix = "PORTMASTER"

// Config is every setting of the server.
type Config struct {
	HTTPAddr           string        `split_words:"true" default:"127.0.0.1:8080" desc:"address to listen on: host:port, or :port for every interface. Beyond this machine the server listens only with tokens, OIDC or PORTMASTER_AUTH=none"`
	HTTPReadTimeout    time.Duration `split_words:"true" default:"10s" desc:"time limit for a request to arrive"`
	HTTPWriteTimeout   time.Duration `split_words:"true" default:"10s" desc:"time limit for sending an answer"`
	HTTPIdleTimeout    time.Duration `split_words:"true" default:"75s" desc:"how long a kept-alive connection may be idle"`
	HTTPBodyLimit      int           `split_words:"true" default:"65536" desc:"largest request body, in bytes"`
	HTTPConcurrency    int           `split_words:"true" default:"65536" desc:"maximum number of open connections; a request on one more gets 503"`
	Auth               string        `desc:"none: everybody who reaches the server may do everything. If empty, callers need a token if one of the next two files is set; otherwise the server is open, and then listens on this machine only"`
	AuthTokensFile     string        `split_words:"true" desc:"file with the tokens of callers; a change is in use within 2 s"`
	AuthOIDCFile       string        `split_words:"true" desc:"file with the OIDC issuers whose tokens are accepted; read at the start"`
	Hosts              []string      `desc:"names and addresses, joined by commas, that the Host of a request to an open server may have, beside localhost and loopback addresses; others get 421"`
	TLSCertFile        string        `envconfig:"TLS_CERT_FILE" desc:"certificate (PEM) to serve HTTPS with, followed by those between it and its authority; if empty, the server speaks plain HTTP. Read again when it changes, as are the next two"`
	TLSKeyFile         string        `envconfig:"TLS_KEY_FILE" desc:"private key (PEM) of that certificate"`
	TLSClientCAFile    string        `envconfig:"TLS_CLIENT_CA_FILE" desc:"certificate authorities (PEM): clients must have a certificate from one of them (mTLS); if empty, clients need none"`
	OpsAddr            string        `split_words:"true" desc:"address of a second listener, without TLS or authentication: /livez, /readyz, /metrics and /debug/pprof; if empty, there is none, and no pprof"`
	RedisURL           Secret        `split_words:"true" desc:"redis://[user:password@]host:port[/db]; also rediss://, unix://, Sentinel and Cluster (see config/README.md). If empty, the state is kept inside the process and ends with it"`
	RedisPasswordFile  string        `split_words:"true" desc:"file with the Redis password, instead of one in the URL; read for each new connection"`
	RedisCAFile        string        `split_words:"true" desc:"certificates (PEM) to verify Redis with; if empty, those that the system trusts"`
	RedisCertFile      string        `split_words:"true" desc:"client certificate (PEM) of this server; read for each new connection"`
	RedisKeyFile       string        `split_words:"true" desc:"private key (PEM) of that certificate"`
	RedisTimeout       time.Duration `split_words:"true" default:"800ms" desc:"how long a call may wait for Redis"`
	RedisQueue         int           `split_words:"true" default:"4096" desc:"how many calls may wait for Redis; one more is refused at once"`
	Durability         Durability    `default:"local" desc:"local, or replicated:N: a change is confirmed only when N replicas of its master have it"`
	MaxRollback        time.Duration `split_words:"true" default:"10s" desc:"how much older than the acknowledged state Redis may be, as after a failover. If it is older, the server hands out no port until portmaster recover is run. With replicated:N it may not be older at all"`
	AllowVolatile      bool          `split_words:"true" default:"false" desc:"true: do not warn if Redis has no append-only file"`
	KeyPrefix          string        `split_words:"true" default:"portmaster" desc:"first part of every key in Redis"`
	OfferTTL           time.Duration `split_words:"true" default:"30m" desc:"how long an offer stays open"`
	MaxWait            time.Duration `split_words:"true" default:"60s" desc:"how long a call may wait for a port (?wait=)"`
	MaxWaiting         int           `split_words:"true" default:"2000" desc:"how many calls may wait for a port on this server; one more is refused"`
	MaxPorts           int           `split_words:"true" default:"256" desc:"how many ports one call may ask for: 1 to 256"`
	Quarantine         time.Duration `default:"5m" desc:"how long a port that was rejected or released as in use is not handed out"`
	MaxStreams         int           `split_words:"true" default:"256" desc:"how many streams of events this server sends at a time; one more is refused"`
	ReleaseNeedsSecret bool          `split_words:"true" default:"false" desc:"true: a release requires the allocation's secret (Portmaster-Secret) or its fence (If-Match)"`
	MaxServices        int           `split_words:"true" default:"10000" desc:"how many services a pool may have"`
	MaxPools           int           `split_words:"true" default:"10000" desc:"how many pools there may be"`
	History            int           `default:"10000" desc:"how many events of each service are kept as its history, or up to about a hundred more; 0: none is recorded"`
	PortMin            int           `split_words:"true" default:"1024" desc:"lowest port that a range may contain"`
	PortMax            int           `split_words:"true" default:"49151" desc:"highest port that a range may contain"`
	LogFormat          string        `split_words:"true" default:"text" desc:"text or json"`
	LogLevel           slog.Level    `split_words:"true" default:"info" desc:"debug, info, warn or error"`
	LogSlowCall        time.Duration `split_words:"true" default:"500ms" desc:"log a call that takes longer, not counting its wait for a port; at most one a second"`
	Audit              string        `default:"off" desc:"off, refusals or all: log a line for each change and each refusal, with who asked for it (see deployments/README.md)"`
	AuditFile          string        `split_words:"true" desc:"file for these lines, opened anew at SIGHUP; if empty, they go to the log"`
	ShutdownDelay      time.Duration `split_words:"true" default:"1s" desc:"after SIGTERM, how long /readyz fails before the server stops listening, so that load balancers stop using it"`
	ShutdownTimeout    time.Duration `split_words:"true" default:"10s" desc:"after that, how long open requests may take to finish"`
}

// The values of Config.Audit.
const (
	AuditOff      = "off"
	AuditRefusals = "refusals"
	AuditAll      = "all"
)

// Secret is a text that is never printed, since it may contain a password.
type Secret string

// String hides the text.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(hidden)"
}

// GoString hides the text from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the text from encoders, such as that of a log in JSON.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Load reads the environment. Its error is one line that names the wrong variable.
func Load() (Config, error) {
	var c Config
	if err := envconfig.Process(Prefix, &c); err != nil {
		if parse, ok := errors.AsType[*envconfig.ParseError](err); ok {
			return Config{}, fmt.Errorf("%s=%q is not a valid %s", parse.KeyName, parse.Value, kinds[parse.TypeName])
		}
		return Config{}, err
	}
	return c, c.validate()
}

// kinds describes the types of Config in words.
var kinds = map[string]string{
	"time.Duration":     "duration, such as 30m or 1500ms",
	"int":               "whole number",
	"bool":              "boolean: true or false",
	"slog.Level":        "level: debug, info, warn or error",
	"config.Durability": "durability: local or replicated:N",
}

var keyPrefix = regexp.MustCompile(`^[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*$`)

// validate returns an error for the first value that is out of bounds.
func (c Config) validate() error {
	if !validAddr(c.HTTPAddr) {
		return fail("HTTP_ADDR", "must be host:port or :port, not %q", c.HTTPAddr)
	}
	if c.OpsAddr != "" && !validAddr(c.OpsAddr) {
		return fail("OPS_ADDR", "must be host:port or :port, not %q", c.OpsAddr)
	}
	for _, d := range []struct {
		variable string
		value    time.Duration
		min, max time.Duration
	}{
		{"HTTP_READ_TIMEOUT", c.HTTPReadTimeout, time.Millisecond, time.Hour},
		{"HTTP_WRITE_TIMEOUT", c.HTTPWriteTimeout, time.Millisecond, time.Hour},
		{"HTTP_IDLE_TIMEOUT", c.HTTPIdleTimeout, time.Millisecond, 24 * time.Hour},
		{"REDIS_TIMEOUT", c.RedisTimeout, time.Millisecond, time.Minute},
		{"MAX_ROLLBACK", c.MaxRollback, 0, time.Hour},
		{"OFFER_TTL", c.OfferTTL, time.Millisecond, 30 * 24 * time.Hour},
		{"MAX_WAIT", c.MaxWait, 0, 10 * time.Minute},
		{"QUARANTINE", c.Quarantine, 0, 24 * time.Hour},
		{"LOG_SLOW_CALL", c.LogSlowCall, 0, time.Hour},
		{"SHUTDOWN_DELAY", c.ShutdownDelay, 0, time.Hour},
		{"SHUTDOWN_TIMEOUT", c.ShutdownTimeout, 0, time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			return fail(d.variable, "must be within %s-%s, not %s", d.min, d.max, d.value)
		}
	}
	switch {
	case c.HTTPBodyLimit < 1024 || c.HTTPBodyLimit > 1<<20:
		return fail("HTTP_BODY_LIMIT", "must be within 1024-1048576, not %d", c.HTTPBodyLimit)
	case c.HTTPConcurrency < 1:
		return fail("HTTP_CONCURRENCY", "must be at least 1, not %d", c.HTTPConcurrency)
	case c.RedisQueue < 1 || c.RedisQueue > 1<<20:
		return fail("REDIS_QUEUE", "must be within 1-1048576, not %d", c.RedisQueue)
	case c.MaxWaiting < 1 || c.MaxWaiting > 1<<20:
		return fail("MAX_WAITING", "must be within 1-1048576, not %d", c.MaxWaiting)
	case c.MaxStreams < 1 || c.MaxStreams > 1<<16:
		return fail("MAX_STREAMS", "must be within 1-65536, not %d", c.MaxStreams)
	case c.MaxPorts < 1 || c.MaxPorts > 256:
		return fail("MAX_PORTS", "must be within 1-256, not %d", c.MaxPorts)
	case c.Durability > 0 && c.RedisURL == "":
		return fail("DURABILITY", "requires %s_REDIS_URL: the store inside the process has no replica", Prefix)
	case !keyPrefix.MatchString(c.KeyPrefix):
		return fail("KEY_PREFIX", "must be parts of A-Z a-z 0-9 . _ -, joined by colons, not %q", c.KeyPrefix)
	case c.MaxServices < 1 || c.MaxServices > 65535:
		return fail("MAX_SERVICES", "must be within 1-65535, not %d", c.MaxServices)
	case c.MaxPools < 1 || c.MaxPools > 100_000:
		return fail("MAX_POOLS", "must be within 1-100000, not %d", c.MaxPools)
	case c.History < 0 || c.History > 1_000_000:
		return fail("HISTORY", "must be within 0-1000000, not %d", c.History)
	case c.PortMin < 1 || c.PortMin > 65535:
		return fail("PORT_MIN", "must be within 1-65535, not %d", c.PortMin)
	case c.PortMax < c.PortMin || c.PortMax > 65535:
		return fail("PORT_MAX", "must be within PORT_MIN-65535, not %d", c.PortMax)
	case c.Audit != AuditOff && c.Audit != AuditRefusals && c.Audit != AuditAll:
		return fail("AUDIT", "must be off, refusals or all, not %q", c.Audit)
	case c.AuditFile != "" && c.Audit == AuditOff:
		return fail("AUDIT_FILE", "requires %s_AUDIT=all or refusals", Prefix)
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fail("LOG_FORMAT", "must be text or json, not %q", c.LogFormat)
	}
	return cmp.Or(c.validateAuth(), c.validateTLSFiles(), c.validateRedisFiles())
}

// validateTLSFiles returns an error for a file that is set without the others that it needs.
func (c Config) validateTLSFiles() error {
	switch {
	case c.TLSCertFile != "" && c.TLSKeyFile == "":
		return fail("TLS_CERT_FILE", "requires %s_TLS_KEY_FILE", Prefix)
	case c.TLSKeyFile != "" && c.TLSCertFile == "":
		return fail("TLS_KEY_FILE", "requires %s_TLS_CERT_FILE", Prefix)
	case c.TLSClientCAFile != "" && c.TLSCertFile == "":
		return fail("TLS_CLIENT_CA_FILE", "requires %s_TLS_CERT_FILE", Prefix)
	}
	return nil
}

// Open reports whether callers need no token.
func (c Config) Open() bool { return c.AuthTokensFile == "" && c.AuthOIDCFile == "" }

// OpenOnPurpose is the value of Auth by which a server is open on every interface.
const OpenOnPurpose = "none"

var hostName = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// validateAuth returns an error for settings of who may call that contradict each other.
func (c Config) validateAuth() error {
	switch {
	case c.Auth != "" && c.Auth != OpenOnPurpose:
		return fail("AUTH", "must be empty or %s, not %q", OpenOnPurpose, c.Auth)
	case c.Auth == OpenOnPurpose && !c.Open():
		return fail("AUTH", "must be empty if %s_AUTH_TOKENS_FILE or %s_AUTH_OIDC_FILE is set, not %q", Prefix, Prefix, c.Auth)
	}
	for _, host := range c.Hosts {
		if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) {
			return fail("HOSTS", "must be names or addresses without a port, joined by commas, not %q", host)
		}
	}
	return nil
}

// validateRedisFiles returns an error for a file that is set without the setting that it belongs to.
func (c Config) validateRedisFiles() error {
	overTLS := strings.HasPrefix(string(c.RedisURL), "rediss://") || strings.HasPrefix(string(c.RedisURL), "rediss+cluster://")
	switch {
	case c.RedisPasswordFile != "" && c.RedisURL == "":
		return fail("REDIS_PASSWORD_FILE", "requires %s_REDIS_URL", Prefix)
	case c.RedisCAFile != "" && !overTLS:
		return fail("REDIS_CA_FILE", "requires a %s_REDIS_URL that begins with rediss://", Prefix)
	case c.RedisCertFile != "" && !overTLS:
		return fail("REDIS_CERT_FILE", "requires a %s_REDIS_URL that begins with rediss://", Prefix)
	case c.RedisKeyFile != "" && !overTLS:
		return fail("REDIS_KEY_FILE", "requires a %s_REDIS_URL that begins with rediss://", Prefix)
	case c.RedisCertFile != "" && c.RedisKeyFile == "":
		return fail("REDIS_CERT_FILE", "requires %s_REDIS_KEY_FILE", Prefix)
	case c.RedisKeyFile != "" && c.RedisCertFile == "":
		return fail("REDIS_KEY_FILE", "requires %s_REDIS_CERT_FILE", Prefix)
	}
	return nil
}

// fail returns an error of one line that names a variable and says what is wrong with it.
func fail(variable, format string, args ...any) error {
	return fmt.Errorf("%s_%s %s", Prefix, variable, fmt.Sprintf(format, args...))
}

// validAddr reports whether addr is host:port or :port with a number as the port.
func validAddr(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// Help lists every variable with its default and description, aligned for a terminal.
func Help() string {
	var text bytes.Buffer
	aligned := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	usage(aligned, helpFormat)
	aligned.Flush()
	return text.String()
}

// Table lists the same as a table in Markdown.
func Table() string {
	var text bytes.Buffer
	usage(&text, tableFormat)
	return text.String()
}

// Unknown lists the variables that begin with the prefix but are no setting, such as a misspelt one. They are no error,
// because Kubernetes sets such variables for a Service called portmaster.
func Unknown() []string {
	var keys bytes.Buffer
	usage(&keys, "{{range .}}{{usage_key .}}\n{{end}}")
	known := strings.Fields(keys.String())
	var unknown []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, Prefix+"_") && !slices.Contains(known, name) && !slices.Contains(ofClients, name) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// ofClients are the variables of the commands that ask a server. A server may well be started by a shell, or a command, that has them.
var ofClients = []string{
	Prefix + "_SERVER", Prefix + "_POOL", Prefix + "_SECRET", Prefix + "_NAME", Prefix + "_FENCE", Prefix + "_TOKEN",
	Prefix + "_TOKEN_FILE",
}

const (
	helpFormat = "{{range .}}{{usage_key .}}\t{{with usage_default .}}{{.}}{{else}}-{{end}}\t{{usage_description .}}\n{{end}}"

	tableFormat = "| variable | default | what it does |\n|---|---|---|\n" +
		"{{range .}}| `{{usage_key .}}` | {{with usage_default .}}`{{.}}`{{end}} | {{usage_description .}} |\n{{end}}"
)

func usage(out io.Writer, format string) {
	if err := envconfig.Usagef(Prefix, &Config{}, out, format); err != nil {
		panic(err) // the format is a constant, and writing to memory does not fail
	}
}
