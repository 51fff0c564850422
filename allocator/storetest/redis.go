package storetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"portmaster/allocator/storetest/processes"
)

// access is who a Redis lets in, and how.
type access int

const (
	open    access = iota // everybody
	users                 // the users of deployments/redis/users.acl, and admin
	overTLS               // the same, over TLS and with a client certificate only
)

// redisServer is a redis-server process in a temporary folder; a Sentinel is one, too.
type redisServer struct {
	addr, dir        string
	program, version string
	args, env        []string
	options          *redis.Options // of who may do everything
	user, password   string         // of the server
	tls              *TLSFiles
	process          *os.Process
	exited           <-chan struct{}
}

// startRedis starts a Redis with an append-only file, in an environment, or in that of the test where it is nil.
func startRedis(by access, env []string, args ...string) (*redisServer, error) {
	// Without fsync no write to the file is ever put off: it has all that was answered, whenever the process is killed.
	args = append([]string{"--save", "", "--appendonly", "yes", "--appendfsync", "no"}, args...)
	return start(func(s *redisServer) error {
		host, port, _ := net.SplitHostPort(s.addr)
		s.options, s.env = optionsOf(s.addr), env
		s.args = append([]string{"--bind", host, "--dir", s.dir, "--logfile", s.log()}, args...)
		if !s.old() {
			s.args = append(s.args, "--enable-debug-command", "local")
		}
		if by != open && !s.old() {
			s.user, s.password = User, Password
			s.options.Username, s.options.Password = admin, Password
			if err := writeUsers(filepath.Join(s.dir, "users.acl")); err != nil {
				return err
			}
			s.args = append(s.args, "--aclfile", filepath.Join(s.dir, "users.acl"))
		}
		if by != overTLS {
			s.args = append(s.args, "--port", port)
			return nil
		}
		own, err := s.addTLS()
		s.args = append(s.args, "--port", "0", "--tls-port", port, "--tls-ca-cert-file", own.CA, "--tls-cert-file", own.Cert,
			"--tls-key-file", own.Key)
		return err
	})
}

// start starts a process on a port found free. That may be taken before the process has it: then another is tried.
func start(prepare func(*redisServer) error) (s *redisServer, err error) {
	program, version, err := findServer()
	if err != nil {
		return nil, err
	}
	for range 5 {
		s = &redisServer{program: program, version: version}
		if s.dir, err = os.MkdirTemp("", "portmaster-redis-"); err != nil {
			return nil, err
		}
		if s.addr, err = processes.FreeAddr(); err == nil {
			if err = prepare(s); err == nil {
				if err = s.run(); err == nil {
					return s, nil
				}
			}
		}
		os.RemoveAll(s.dir)
	}
	return nil, err
}

// findServer finds redis-server, or else valkey-server, and what it is: "redis 7.0.15".
func findServer() (program, version string, err error) {
	program, err = exec.LookPath("redis-server")
	if err != nil {
		if valkey, missing := exec.LookPath("valkey-server"); missing == nil {
			program, err = valkey, nil
		}
	}
	if err != nil {
		return "", "", err
	}
	says, err := exec.Command(program, "--version").Output()
	return program, parseVersion(string(says)), err
}

// parseVersion reads what a server answers to --version: "Redis server v=7.0.15 sha=...".
func parseVersion(says string) string {
	name, _, _ := strings.Cut(says, " ")
	return strings.ToLower(name) + " " + field(says, "v=")
}

// old reports whether the server is a Redis 6, which knows neither all that deployments/redis/users.acl says nor all options
// of a later one. Everybody may do everything there.
func (s *redisServer) old() bool { return strings.HasPrefix(s.version, "redis 6.") }

// writeUsers copies the file that is shipped, gives its users a password, and adds one who may do everything.
func writeUsers(path string) error {
	shipped, err := UsersFile()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(shipped)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^user \w+ on`).ReplaceAll(text, []byte("$0 >"+Password))
	text = fmt.Appendf(text, "user %s on >%s ~* &* +@all\n", admin, Password)
	return os.WriteFile(path, text, 0o600)
}

// UsersFile returns the path of deployments/redis/users.acl, seen from a package of this module.
func UsersFile() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, "deployments", "redis", "users.acl")
		if _, err := os.Stat(path); err == nil || dir == filepath.Dir(dir) {
			return path, err
		}
		dir = filepath.Dir(dir)
	}
}

// addTLS makes an authority for the server, and returns the files of the server's own certificate.
func (s *redisServer) addTLS() (own TLSFiles, err error) {
	authority, err := NewAuthority(s.dir)
	if err != nil {
		return own, err
	}
	client, err := authority.Issue("client")
	if err != nil {
		return own, err
	}
	s.tls = &client
	if s.options.TLSConfig, err = client.config(); err != nil {
		return own, err
	}
	s.options.Dialer = dialTLS(s.options.TLSConfig)
	return authority.Issue("redis")
}

// store returns the server as tests see it.
func (s *redisServer) store(t testing.TB) Store {
	options := *s.options
	options.Username, options.Password = s.user, s.password
	of := *s.options
	return Store{
		Name: "redis", Addr: s.addr, Client: connect(t, &options), Admin: connect(t, &of), Prefix: "portmaster", TLS: s.tls, options: &options,
	}
}

// run starts the process and waits until it answers. The kernel ends it with the test process, however that ends.
func (s *redisServer) run() error {
	cmd := exec.Command(s.program, s.args...)
	cmd.Env = s.env
	exited, err := processes.Start(cmd)
	if err != nil {
		return err
	}
	s.exited = exited
	s.process = cmd.Process
	options := *s.options
	client := redis.NewClient(&options)
	defer client.Close()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		select {
		case <-s.exited:
			log, _ := os.ReadFile(s.log())
			return fmt.Errorf("redis-server ended at once: %s", log)
		default:
		}
		if err := client.Ping(context.Background()).Err(); err == nil || redis.HasErrorPrefix(err, "NOAUTH") {
			return nil
		}
	}
	s.end()
	return errors.New("redis-server did not answer within 10 s")
}

func (s *redisServer) log() string { return filepath.Join(s.dir, "redis.log") }

func (s *redisServer) end() {
	s.process.Kill()
	<-s.exited
}

func (s *redisServer) remove() {
	s.end()
	os.RemoveAll(s.dir)
}

func field(line, prefix string) string {
	for word := range strings.FieldsSeq(line) {
		if value, ok := strings.CutPrefix(word, prefix); ok {
			return value
		}
	}
	return "of unknown version"
}
