package cli

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portmaster/client"
)

// secretVariable has the secret of accept, reject, renew and release, if no argument does. It is what -o env prints.
const secretVariable = "PORTMASTER_SECRET"

// requestFlags are the flags of a command that asks for ports.
type requestFlags struct {
	port, prefer int
	count, align int
	lease, wait  duration
	secret       string
	labels       map[string]string
}

func (r *requestFlags) addTo(f *pflag.FlagSet) {
	f.IntVar(&r.port, "port", 0, "exactly this port")
	f.IntVar(&r.prefer, "prefer", 0, "this port, or any other if it is not free")
	f.IntVar(&r.count, "count", 0, "how many consecutive ports (1 to 100)")
	f.IntVar(&r.align, "align", 0, "the first port is a multiple of it (2 to 64), such as 2 for RTP")
	f.Var(&r.lease, "lease", "how long it lasts unless it is renewed (1s to 30d); without it until it is released")
	f.Var(&r.wait, "wait", "how long to wait for a free port")
	LabelVar(f, &r.labels, "label", "what others are to know, such as job=4711; may be given several times")
	f.StringVar(&r.secret, "secret", "", "a random UUID, to be able to repeat the command; without it a new one")
}

// requests returns a request for each name. The values that no flag gave are not asked for; a 0 that one gave is wrong.
func (r requestFlags) requests(f *pflag.FlagSet, o output, names []string) ([]client.Request, error) {
	for _, flag := range []string{"port", "prefer", "count", "align", "lease"} {
		if value := f.Lookup(flag); value.Changed && (value.Value.String() == "0" || value.Value.String() == "") {
			return nil, Usage("--%s must be more than 0", flag)
		}
	}
	if len(names) > 1 && (r.port != 0 || r.prefer != 0 || r.secret != "") {
		return nil, Usage("--port, --prefer and --secret are for one NAME")
	}
	variables := map[string]bool{}
	for _, name := range names {
		variables[variable(name)] = true
	}
	if len(variables) < len(names) && o.format == asEnv { // it is too late when the ports are there
		return nil, Usage("two of the names would be the same variable; use -o json")
	}
	requests := make([]client.Request, len(names))
	for i, name := range names {
		requests[i] = client.Request{
			Name: name, Secret: r.secret, Port: r.port, Prefer: r.prefer, Count: r.count, Align: r.align,
			Lease: time.Duration(r.lease), Labels: r.labels,
		}
	}
	return requests, nil
}

// waiting returns for how long the command waits, and tells of it.
func (s *session) waiting(longest duration, service string) client.Wait {
	return client.Wait{Longest: time.Duration(longest), Progress: func(p client.Progress) {
		if p.Waiting < 0 {
			s.progress.Show("waiting for a port of %s for %s; the server does not answer", service, p.Waited.Round(time.Second))
			return
		}
		s.progress.Show("waiting for a port of %s for %s; %d in line", service, p.Waited.Round(time.Second), p.Waiting)
	}}
}

func offerCommand() *cobra.Command {
	var flags requestFlags
	var cmd *cobra.Command
	cmd, s := newCommand(&cobra.Command{
		Use:   "offer SERVICE NAME...",
		Short: "Ask for a port, to test it before it is accepted",
		Long: "Ask for a port as NAME. The offer is open for half an hour, unless the server is set to something else: accept or\n" +
			"reject it with its secret. For several names the command gets all ports or none.\n\n" + exitCodes,
		Example: "  portmaster offer ci job-1 -o json\n" +
			"  portmaster accept ci \"$(portmaster offer ci job-2 -q)\"\n" +
			"  eval \"$(portmaster offer ci job-3 --lease 90s -o env)\"; portmaster reject ci \"$PORTMASTER_SECRET\"",
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, s *session, args []string) error {
		requests, err := flags.requests(cmd.Flags(), s.output, args[1:])
		if err != nil {
			return err
		}
		got, err := s.client.OfferAll(ctx, args[0], requests, s.waiting(flags.wait, args[0]))
		return printGot(s, offered(), got, err)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	flags.addTo(cmd.Flags())
	s.output.addFlags(cmd, "the secret")
	return cmd
}

func claimCommand() *cobra.Command {
	var flags requestFlags
	var existing bool
	var cmd *cobra.Command
	cmd, s := newCommand(&cobra.Command{
		Use:   "claim SERVICE NAME...",
		Short: "Get a port: an offer that is accepted at once",
		Long: "Get a port as NAME: an offer that is accepted at once. Its secret proves who has the port, and nothing else prints it.\n" +
			"For several names the command gets all ports or none. With --existing, a name that has a port already keeps it, and its\n" +
			"secret is not printed.\n\n" + exitCodes,
		Example: "  port=$(portmaster claim ci web-01 -q)\n" +
			"  portmaster claim ci web-02 --lease 1h --wait 1m --prefer 20010\n" +
			"  portmaster claim ci db cache --count 2 -o env",
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, s *session, args []string) error {
		requests, err := flags.requests(cmd.Flags(), s.output, args[1:])
		if err != nil {
			return err
		}
		for i := range requests {
			requests[i].Existing = existing
		}
		got, err := s.client.ClaimAll(ctx, args[0], requests, s.waiting(flags.wait, args[0]))
		if err = printGot(s, allocations, got, err); err != nil && flags.secret == "" {
			for _, a := range got { // nobody knows their secrets
				if !a.Existed {
					_ = s.client.Release(context.WithoutCancel(ctx), a)
				}
			}
		}
		return err
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	flags.addTo(cmd.Flags())
	cmd.Flags().BoolVar(&existing, "existing", false, "if the NAME has a port already, print that")
	s.output.addFlags(cmd, "the port")
	return cmd
}

// printGot prints one item as such, and several as a list.
func printGot[T any](s *session, k kind[T], got []T, err error) error {
	s.progress.Done()
	if err != nil {
		return err
	}
	if len(got) == 1 {
		return printOne(s.output, k, got[0])
	}
	return printAll(s.output, k, each(got))
}

// secretOf returns the secret that is the argument behind the service, or in the environment.
func secretOf(args []string) (string, error) {
	if len(args) > 1 {
		return args[1], nil
	}
	if secret := os.Getenv(secretVariable); secret != "" {
		return secret, nil
	}
	return "", Usage("there is no SECRET, and no %s", secretVariable)
}

func acceptCommand() *cobra.Command {
	var lease duration
	cmd, s := newCommand(&cobra.Command{
		Use:   "accept SERVICE [SECRET]",
		Short: "Accept an offer",
		Long: "Accept the offer with this secret, or with that in " + secretVariable + ", which other users of this machine do\n" +
			"not see: for the lease that was asked for, or another one.\n\n" + exitCodes,
		Example: "  portmaster accept ci \"$(portmaster offer ci job-4 -q)\" --lease 10m",
		Args:    cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		secret, err := secretOf(args)
		if err != nil {
			return err
		}
		a, err := s.client.Accept(ctx, args[0], secret, time.Duration(lease))
		if err != nil {
			return err
		}
		return printOne(s.output, allocations, a)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().Var(&lease, "lease", "how long the allocation lasts, in place of what was asked for (1s to 30d)")
	s.output.addFlags(cmd, "the port")
	return cmd
}

func rejectCommand() *cobra.Command {
	var inUse bool
	cmd, s := newCommand(&cobra.Command{
		Use:   "reject SERVICE [SECRET]",
		Short: "Reject an offer",
		Long: "Reject the offer with this secret, or with that in " + secretVariable + ", which other users of this machine do\n" +
			"not see. Its port and its name are free again.\n\n" + exitCodes,
		Example: "  portmaster reject ci \"$(portmaster offer ci job-5 -q)\" --in-use",
		Args:    cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		secret, err := secretOf(args)
		if err != nil {
			return err
		}
		return s.client.Reject(ctx, args[0], secret, inUse)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().BoolVar(&inUse, "in-use", false, inUseHelp)
	s.output.addQuiet(cmd)
	return cmd
}
