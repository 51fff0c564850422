package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

// The variables that say where a server is, if no flag does.
const (
	ServerVariable = "PORTMASTER_SERVER"
	PoolVariable   = "PORTMASTER_POOL"
)

// retryFor is how long a command tries to reach a server, beside the time that it may wait for a port.
const retryFor = 5 * time.Second

// Server is the server that a command asks, the pool, and how the command says who it is. All commands that ask one have the same flags for it, which AddFlags
// adds, and get their client from Client.
type Server struct{ Address, Pool, OIDC, Audience string }

// AddFlags adds --server and --pool, with what the environment says as their defaults.
func (s *Server) AddFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	address := cmp.Or(os.Getenv(ServerVariable), "http://127.0.0.1:8080")
	f.StringVar(&s.Address, "server", address, "address of the server ("+ServerVariable+")")
	f.StringVar(&s.Pool, "pool", cmp.Or(os.Getenv(PoolVariable), "default"), "pool of the services ("+PoolVariable+")")
	_ = cmd.RegisterFlagCompletionFunc("pool", s.completePools)
	f.StringVar(&s.OIDC, "oidc", "", "show an ID token: github (of this Actions job) or file:PATH, in place of "+client.TokenVariable)
	f.StringVar(&s.Audience, "oidc-audience", "portmaster", "audience of the ID token for --oidc github")
}

// Client returns a client of the server. An address that is none is an error of usage.
func (s Server) Client(options client.Options) (*client.Client, error) {
	options.Pool = s.Pool
	path, isFile := strings.CutPrefix(s.OIDC, "file:")
	switch {
	case s.OIDC == "":
	case s.OIDC == "github":
		options.Token = client.GitHubToken(s.Audience)
	case isFile && path != "":
		options.Token = client.FileToken(path)
	default:
		return nil, Usage("--oidc must be github or file:PATH, not %q", s.OIDC)
	}
	options.RetryFor = cmp.Or(options.RetryFor, retryFor)
	c, err := client.New(s.Address, options)
	if err != nil {
		return nil, Usage("%w", err)
	}
	return c, nil
}

// Progress tells a person what a command waits for: on one line of a terminal, which Done clears. A nil one tells nobody.
type Progress struct {
	to    io.Writer
	mu    sync.Mutex
	shown int // characters of the line
}

// NewProgress returns a Progress on stderr if that is a terminal, and nil otherwise.
func NewProgress(stderr io.Writer) *Progress {
	if file, ok := stderr.(*os.File); !ok || !isTerminal(file) {
		return nil
	}
	return &Progress{to: stderr}
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Show replaces the line.
func (p *Progress) Show(format string, args ...any) {
	if p == nil {
		return
	}
	text := printable(fmt.Sprintf(format, args...))
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(p.to, "\r", text, strings.Repeat(" ", max(p.shown-len(text), 0)))
	p.shown = len(text)
}

// Done clears the line.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown > 0 {
		fmt.Fprint(p.to, "\r", strings.Repeat(" ", p.shown), "\r")
		p.shown = 0
	}
}

// session is a command of this package while it runs.
type session struct {
	server   Server
	output   output
	client   *client.Client
	progress *Progress
	stderr   io.Writer
	again    func(failed error, pause time.Duration) // told before a call is repeated
}

// newCommand returns a command that asks the server. run is called with the session, whose client is ready.
func newCommand(cmd *cobra.Command, run func(ctx context.Context, s *session, args []string) error) (*cobra.Command, *session) {
	s := &session{}
	s.server.AddFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := s.output.check(); err != nil {
			return err
		}
		if s.output.to, s.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr(); !s.output.quiet {
			s.progress = NewProgress(s.stderr)
		}
		s.again = func(failed error, _ time.Duration) { s.progress.Show("%v; trying again", failed) }
		again := func(failed error, pause time.Duration) { s.again(failed, pause) }
		if s.client, err = s.server.Client(client.Options{OnRetry: again}); err != nil {
			return err
		}
		err = run(cmd.Context(), s, args)
		s.progress.Done()
		return err
	}
	return cmd, s
}

// warn tells of what succeeded and may still need a look.
func (s *session) warn(text string) {
	if !s.output.quiet {
		fmt.Fprintln(s.stderr, "portmaster: warning:", printable(text))
	}
}
