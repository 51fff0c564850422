package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"
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

var freePorts = kind[int]{
	heads: []string{"PORT"},
	row:   func(port int) []string { return []string{strconv.Itoa(port)} },
	entry: func(port int) []string { return given("FREE_"+strconv.Itoa(port), strconv.Itoa(port)) },
	id:    strconv.Itoa,
}
