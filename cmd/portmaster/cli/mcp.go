package cli

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"portmaster/cmd/portmaster/mcp"
)

func mcpCommand() *cobra.Command {
	lease, wait := duration(90*time.Second), duration(20*time.Second)
	var cmd *cobra.Command
	cmd, _ = newCommand(&cobra.Command{
		Use:   "mcp",
		Short: "Serve coding agents: tools to claim ports, over the Model Context Protocol",
		Long: "Serve a coding agent over standard input and output with the Model Context Protocol. It can claim, release and list\n" +
			"ports. Leases are kept while the session lives, and the ports are released when it ends.\n\n" + exitCodes,
		Example: "  portmaster mcp --pool dev < /dev/null",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, s *session, _ []string) error {
		if lease < duration(time.Second) {
			return Usage("--lease must be 1s to 30d")
		}
		log := slog.New(slog.NewTextHandler(s.stderr, nil))
		session := mcp.NewSession(s.client, time.Duration(lease), time.Duration(wait), log)
		return mcp.Serve(ctx, session, cmd.Root().Version)
	})
	cmd.Flags().Var(&lease, "lease", "for how long a port is kept if this process dies (1s to 30d)")
	cmd.Flags().Var(&wait, "wait", "how long a claim waits for a port if none is free")
	return cmd
}
