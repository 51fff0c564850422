package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portmaster/allocator"
	"portmaster/cmd/portmaster/cli"
)

func checkCommand() *cobra.Command {
	var format string
	var repair, isLocal bool
	var local cli.LocalCheck
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Hold the keys in Redis against each other, and repair what contradicts the records",
		Long: "Hold the keys of all services in Redis against each other, with the settings of a server. Servers may go on\n" +
			"meanwhile: each script looks at some ports in one step. Findings are printed, one a line, and make the exit code 1.\n" +
			"With --repair, entries that stand for nothing are removed, and those that a holder's record lacks are put back.\n" +
			"No record of a holder is ever changed; if two claim a port or a name, that is only reported.\n\n" +
			"With --local, no Redis is needed: the command asks a server for the allocations of a pool, and compares them with the\n" +
			"sockets of this machine. It prints allocations whose ports nothing listens on here, and ports of the pool's services\n" +
			"that a program here uses and nobody has. --adopt claims the latter, without a lease.",
		Example: "  export PORTMASTER_REDIS_URL=redis://localhost:6379\n  portmaster check\n  portmaster check --pool default --repair\n  portmaster check --local --pool dev",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			pool := ""
			if cmd.Flags().Changed("pool") {
				pool = local.Server.Pool
			}
			switch {
			case format != "table" && format != "json":
				return cli.Usage("--output must be table or json, not %q", format)
			case isLocal && repair:
				return cli.Usage("--repair cannot be combined with --local")
			case !isLocal && local.Adopt:
				return cli.Usage("--adopt needs --local")
			case isLocal:
				return local.Run(cmd)
			}
			ports, closeStore, err := openAllocator(cmd)
			if err != nil {
				return err
			}
			defer closeStore()
			c := keyCheck{out: cmd.OutOrStdout(), json: format == "json"}
			if err := c.run(cmd, ports, pool, repair); err != nil {
				return err
			}
			return c.result()
		},
	}
	local.Server.AddFlags(cmd)
	cmd.Flags().Lookup("pool").Usage = "check this pool only (without --local, the default is all of them)"
	cmd.Flags().BoolVar(&isLocal, "local", false, "compare the sockets of this machine with the allocations of a pool")
	cmd.Flags().BoolVar(&local.Adopt, "adopt", false, "with --local: claim the ports that are used and nobody's")
	cmd.Flags().StringVar(&local.Secrets, "secrets", "portmaster-secrets.jsonl", "with --adopt: file for the new secrets, which only you can read")
	cmd.Flags().BoolVar(&repair, "repair", false, "repair what contradicts the records")
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json: one object a line")
	return cmd
}

// keyCheck prints what a check finds, and counts it.
type keyCheck struct {
	out             io.Writer
	json            bool
	found, repaired int
}

func (c *keyCheck) run(cmd *cobra.Command, ports *allocator.Allocator, pool string, repair bool) error {
	if pool != "" {
		return refusedOr(ports.CheckKeys(cmd.Context(), pool, repair, c.print))
	}
	for cursor := ""; ; {
		pools, next, err := ports.Pools(cmd.Context(), nil, cursor, allocator.MaxPage)
		if err != nil {
			return refusedOr(err)
		}
		for _, p := range pools {
			if err := ports.CheckKeys(cmd.Context(), p.Name, repair, c.print); err != nil {
				return refusedOr(fmt.Errorf("pool %s: %w", p.Name, err))
			}
		}
		if cursor = next; next == "" {
			return nil
		}
	}
}

func (c *keyCheck) print(one allocator.Inconsistency) {
	c.found++
	if one.Repaired {
		c.repaired++
	}
	if c.json {
		_ = json.NewEncoder(c.out).Encode(one) // a closed pipe is no reason to leave a repair half done
		return
	}
	repaired := ""
	if one.Repaired {
		repaired = " (repaired)"
	}
	fmt.Fprintf(c.out, "%s/%s %s %s: %s%s\n", one.Pool, one.Service, one.Entry, one.Code, one.Detail, repaired)
}

// result is an error if something was found.
func (c *keyCheck) result() error {
	if c.found == 0 {
		if !c.json {
			fmt.Fprintln(c.out, "all keys agree")
		}
		return nil
	}
	return fmt.Errorf("%d inconsistencies found, %d repaired", c.found, c.repaired)
}

// refusedOr says what a setting has to do with an error, if one has.
func refusedOr(err error) error {
	if err == nil {
		return nil
	}
	return cmp.Or(refused(err), err)
}
