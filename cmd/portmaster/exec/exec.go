// Package exec is the command portmaster exec: it gets ports for a command, runs it, and keeps the ports until it has ended.
package exec

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
	"portmaster/cmd/portmaster/cli"
)

// Exit codes of exec itself; the others are the command's.
const (
	codeFailed = 125 // exec failed before the command ran
	codeLost   = 75  // a lease was lost: EX_TEMPFAIL
	codeSignal = 128 // and the signal's number
)

// options is what the command line says.
type options struct {
	server  cli.Server
	name    string // "": that of the process
	lease   time.Duration
	yields  bool // if the service gives a shorter lease
	wait    time.Duration
	grace   time.Duration
	count   int
	align   int  // 0: none
	prefer  int  // 0: none
	auto    bool // the port to prefer follows from the name
	checks  checks
	warn    bool // if a lease is lost, instead of stopping the command
	labels  map[string]string
	ports   []port
	command []string
}

const long = `Get a port of SERVICE, run COMMAND with it, and keep the port until the command has ended.

exec waits for a free port, checks that nothing on this machine uses it, accepts it for a lease, and renews the lease while
the command runs. It then releases the port, and exits as the command did. No shell comes between.

The command finds the port in the environment variable PORT, and each port of several services in PORT_ALIAS; without =ALIAS,
that is the name of the service in capitals. PORTMASTER_NAME and PORTMASTER_FENCE are the name and the fence of the first
one. In the arguments of the command, {PORT} and {PORT_ALIAS} stand for the same ports.

Without --, the first argument is the service, and the others are the command.

Exit codes: the command's; 128 + n if signal n ended it; 75 if a lease was lost; 125 if exec failed before the command ran;
126 if the command cannot be run; 127 if there is no such command.`

const example = `  portmaster exec ci -- make test
  portmaster exec dev -- npm start -- --port={PORT}
  portmaster exec --prefer auto dev=WEB db=DB -- docker compose up`

// Command returns portmaster exec. Its error is a *cli.Exit.
func Command() *cobra.Command {
	var o options
	var prefer, check, onLost string
	cmd := &cobra.Command{
		GroupID: cli.Group,
		Use:     "exec [flags] SERVICE[=ALIAS]... -- COMMAND [ARG]...",
		Short:   "Run a command with a port of its own",
		Long:    long,
		Example: example,
		Args:    cobra.ArbitraryArgs, // an error of cobra's has the exit code 1
		RunE: func(cmd *cobra.Command, args []string) error {
			o.yields = !cmd.Flags().Changed("lease")
			if err := o.read(args, prefer, check, onLost); err != nil {
				return &cli.Exit{Code: codeFailed, Err: fmt.Errorf("%w; see portmaster exec --help", err)}
			}
			return run(cmd.Context(), o)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &cli.Exit{Code: codeFailed, Err: err} })
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 { // the command
			return nil, cobra.ShellCompDirectiveDefault
		}
		return o.server.CompleteService(cmd, args, text)
	}
	o.server.AddFlags(cmd)
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the service is not for exec
	f.StringVar(&o.name, "name", "", "instance name (default: host, user, directory and process id)")
	cli.DurationVar(f, &o.lease, "lease", 90*time.Second, "how long the port stays allocated if exec is killed, or the server is away")
	cli.DurationVar(f, &o.wait, "wait", 5*time.Minute, "how long to wait for a free port, or for a server that is away")
	f.IntVar(&o.count, "count", 1, "how many consecutive ports of each service; PORT is the first")
	f.IntVar(&o.align, "align", 0, "the first port of each service is a multiple of it (2 to 64), such as 2 for RTP")
	f.StringVar(&prefer, "prefer", "", "`PORT` to get if it is free, or auto: the same port each time, as far as it is free")
	cli.LabelVar(f, &o.labels, "label", "what others are to know, such as job=4711; may be given several times")
	f.StringVar(&check, "check", "tcp,udp", "which protocols must be unused on this machine: tcp, udp, or none")
	cli.DurationVar(f, &o.grace, "grace", 10*time.Second, "how long the command has to end after a lease was lost, from SIGTERM to SIGKILL")
	f.StringVar(&onLost, "on-lost", "stop", "stop the command when a lease is lost, or warn")
	return cmd
}

// read reads the arguments, and the flags that are not plain values.
func (o *options) read(args []string, prefer, check, onLost string) (err error) {
	if o.ports, o.command, err = readArgs(args); err != nil {
		return err
	}
	if o.checks, err = parseChecks(check); err != nil {
		return err
	}
	if o.auto = prefer == "auto"; prefer != "" && !o.auto {
		if o.prefer, err = strconv.Atoi(prefer); err != nil || o.prefer < 1 || o.prefer > 65535 {
			return fmt.Errorf("--prefer: %q is neither a port nor auto", prefer)
		}
	}
	o.warn = onLost == "warn"
	switch {
	case !o.warn && onLost != "stop":
		return fmt.Errorf("--on-lost: %q is neither stop nor warn", onLost)
	case o.count < 1 || o.count > 100:
		return errors.New("--count must be 1 to 100")
	case o.align != 0 && (o.align < 2 || o.align > 64):
		return errors.New("--align must be 2 to 64")
	case o.align != 0 && o.prefer%o.align != 0:
		return errors.New("--prefer must be a multiple of --align")
	case prefer != "" && o.count > 1:
		return errors.New("--prefer cannot be combined with --count")
	case o.prefer != 0 && len(o.ports) > 1:
		return errors.New("--prefer with a port is for one service; auto is for any number")
	case o.lease < time.Second || o.lease > 30*24*time.Hour:
		return errors.New("--lease must be 1s to 30d")
	}
	return nil
}

// newClient returns the client of a run. Where it does not wait for ports it does not wait for the server either.
func (o options) newClient(onRetry func(error, time.Duration)) (*client.Client, error) {
	settings := client.Options{OnRetry: onRetry}
	if o.wait == 0 {
		settings.RetryFor = -1
	}
	return o.server.Client(settings)
}
