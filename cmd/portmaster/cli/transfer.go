package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"portmaster/client"
	"portmaster/cmd/portmaster/transfer"
)

func exportCommand() *cobra.Command {
	var all bool
	cmd, s := newCommand(&cobra.Command{
		Use:   "export",
		Short: "Write services and allocations as lines of JSON",
		Long: "Write the services of a pool, each followed by its allocations, as lines of JSON that import reads. Each page of\n" +
			"1,000 is as the server had it at one moment. Open offers and secrets are not written.\n\n" + exitCodes,
		Example: "  portmaster export > ports.jsonl\n  portmaster export --all > ports.jsonl",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, s *session, _ []string) error {
		if !all {
			return transfer.Export(ctx, s.client, s.server.Pool, s.output.to)
		}
		for pool, err := range s.client.Pools(ctx) {
			if err != nil {
				return err
			}
			if err := transfer.Export(ctx, s.client, pool.Name, s.output.to); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.Flags().BoolVar(&all, "all", false, "write all pools")
	s.output.addQuiet(cmd)
	return cmd
}

func importCommand() *cobra.Command {
	var o importing
	cmd, s := newCommand(&cobra.Command{
		Use:   "import FILE|URL|-",
		Short: "Take over services and allocations from a file, or from a running django-portmaster",
		Long: "Take over services and allocations: from a file that export wrote, from standard input (-), or from the address of a\n" +
			"running django-portmaster or Portmaster, such as http://old/v1. Services are defined, and each port is claimed by its\n" +
			"number. What cannot be taken over is printed before anything is written; then nothing is, unless --partly is set.\n" +
			"The new secrets are in a file before the claims are made, so an import that was interrupted can be repeated.\n\n" + exitCodes,
		Example: "  portmaster import ports.jsonl --dry-run\n  portmaster import ports.jsonl",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error { return o.run(ctx, s, args[0]) })
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and do nothing")
	cmd.Flags().BoolVar(&o.partly, "partly", false, "take over the rest if something cannot be taken over")
	cmd.Flags().StringVar(&o.secrets, "secrets", "portmaster-secrets.jsonl", "file for the new secrets, which only you can read")
	s.output.addQuiet(cmd)
	return cmd
}

// importing are the flags of an import.
type importing struct {
	dryRun, partly bool
	secrets        string
}

func (o importing) run(ctx context.Context, s *session, from string) error {
	lines, err := o.read(ctx, s, from)
	if err != nil {
		return err
	}
	plan, err := transfer.MakePlan(ctx, s.client, lines)
	if err != nil {
		return err
	}
	said := 0
	say := func() {
		s.progress.Done()
		for ; said < len(plan.Faults); said++ {
			fmt.Fprintln(s.stderr, printable(plan.Faults[said].String()))
		}
	}
	say()
	refused := len(plan.Faults)
	if o.dryRun {
		for _, line := range plan.Define {
			fmt.Fprintf(s.output.to, "define %s/%s %s\n", line.Pool, line.Service.Name, line.Service)
		}
		for _, line := range plan.Claim {
			a := line.Allocation
			fmt.Fprintf(s.output.to, "claim %s/%s %s %d\n", line.Pool, a.Service, a.Name, a.Port)
		}
	}
	if refused > 0 && !o.partly {
		return &Exit{codeConflict, fmt.Errorf("%d things cannot be taken over, and nothing was written; --partly takes over the rest", refused)}
	}
	if !o.dryRun {
		err = plan.Import(ctx, s.client, o.secrets, func(done, total int) { s.progress.Show("%d of %d allocations", done, total) })
		say()
		if err != nil {
			return fmt.Errorf("%w; repeat the command to go on", err)
		}
	}
	would := ""
	if o.dryRun {
		would = "would be "
	}
	if !s.output.quiet {
		fmt.Fprintf(s.output.to, "%d services %sdefined, %d allocations %sclaimed; %d were there already, %d leases are over, %d were left out\n",
			len(plan.Define), would, len(plan.Claim), would, plan.Present, plan.Ended, len(plan.Faults)+plan.Left)
	}
	if len(plan.Faults) > refused {
		return &Exit{codeConflict, fmt.Errorf("%d names or ports were taken meanwhile", len(plan.Faults)-refused)}
	}
	return nil
}

// read reads what is to be taken over.
func (o importing) read(ctx context.Context, s *session, from string) (lines []transfer.Line, err error) {
	if strings.HasPrefix(from, "http://") || strings.HasPrefix(from, "https://") {
		c, err := client.New(strings.TrimSuffix(strings.TrimSuffix(from, "/"), "/v1"), client.Options{RetryFor: retryFor})
		if err != nil {
			return nil, Usage("%w", err)
		}
		defer c.Close()
		for line, err := range transfer.Read(ctx, c, s.server.Pool) {
			if err != nil {
				return nil, fmt.Errorf("%s: %w", from, err)
			}
			if lines = append(lines, line); len(lines)%1000 == 0 {
				s.progress.Show("%d lines read", len(lines))
			}
		}
		return lines, nil
	}
	in := io.Reader(os.Stdin)
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	if lines, err = transfer.Parse(in); err != nil {
		return nil, Usage("%s: %w", from, err)
	}
	if len(lines) == 0 {
		return nil, errors.New(from + " has no services and no allocations")
	}
	return lines, nil
}
