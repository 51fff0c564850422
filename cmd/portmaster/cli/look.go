package cli

import (
	"cmp"
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"portmaster/client"
)

// What looks at a service, and takes nothing.

func freeCommand() *cobra.Command {
	var limit int
	cmd, s := newCommand(&cobra.Command{
		Use:   "free SERVICE",
		Short: "List the ports that go out next",
		Long: "List the ports of a service that would go out next, in that order. None is reserved: the next call may get another one.\n\n" +
			exitCodes,
		Example: "  portmaster free ci\n  portmaster free ci --limit 1 -q",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		ports, err := s.client.FreePorts(ctx, args[0], limit)
		if err != nil {
			return err
		}
		return printAll(s.output, freePorts, each(ports))
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().IntVar(&limit, "limit", 0, "how many at most, 1 to 1000 (default 1000)")
	s.output.addFlags(cmd, "the ports")
	return cmd
}

func waitingCommand() *cobra.Command {
	cmd, s := newCommand(&cobra.Command{
		Use:   "waiting SERVICE",
		Short: "List the calls that wait for a port",
		Long: "List the calls that wait for a port of a service, in the order in which they are served: for whom (of several requests the\n" +
			"first), for how many ports, and for how long they have waited.\n\n" + exitCodes,
		Example: "  portmaster waiting ci\n  portmaster waiting ci -o json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		return printAll(s.output, waitingCalls, s.client.Waiting(ctx, args[0]))
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	s.output.addFlags(cmd, "the names")
	return cmd
}

var waitingCalls = kind[client.WaitingCall]{
	heads: []string{"NAME", "PORTS", "REQUESTS", "AGE"},
	row: func(w client.WaitingCall) []string {
		waits := "-"
		if !w.Since.IsZero() {
			waits = age(w.Since)
		}
		return []string{cmp.Or(w.Name, "-"), strconv.Itoa(w.Ports), strconv.Itoa(max(w.Requests, 1)), waits}
	},
	entry: func(w client.WaitingCall) []string { return given("WAITING_"+w.Name, strconv.Itoa(w.Ports)) },
	id:    func(w client.WaitingCall) string { return w.Name },
}

var freePorts = kind[int]{
	heads: []string{"PORT"},
	row:   func(port int) []string { return []string{strconv.Itoa(port)} },
	entry: func(port int) []string { return given("FREE_"+strconv.Itoa(port), strconv.Itoa(port)) },
	id:    strconv.Itoa,
}
