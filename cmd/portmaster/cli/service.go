package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

func serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Short:   "Define, read and remove services",
		Long:    "Define, read and remove services. A service is a named range of ports of a pool.\n\n" + exitCodes,
		Example: "  portmaster service define ci 20000-20099\n  portmaster service ls",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usage("there is no command %q of %s; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(serviceDefineCommand(), serviceListCommand(), serviceGetCommand(), serviceRemoveCommand())
	return cmd
}

func serviceDefineCommand() *cobra.Command {
	var description string
	var cooldown duration
	cmd, s := newCommand(&cobra.Command{
		Use:   "define NAME START-END",
		Short: "Define a service, or change it",
		Long: "Define a service that hands out the ports from START to END, or change the range, the description and the cooldown of the\n" +
			"one that has this name. What no flag gives becomes empty. The first service of a pool creates the pool.\n\n" + exitCodes,
		Example: "  portmaster service define ci 20000-20099\n" +
			"  portmaster service define web 8000-8099 --description 'The web servers' --cooldown 1m",
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, s *session, args []string) error {
		start, end, err := portRange(args[1])
		if err != nil {
			return err
		}
		d := client.Definition{Name: args[0], Description: description, Start: start, End: end, Cooldown: time.Duration(cooldown)}
		service, err := s.client.Define(ctx, d)
		if err != nil {
			return err
		}
		for _, warning := range service.Warnings {
			s.warn(warning)
		}
		return printOne(s.output, services, service)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().StringVar(&description, "description", "", "what the service is for, in at most 256 bytes")
	cmd.Flags().Var(&cooldown, "cooldown", "how long a port rests after it was given back (0 to 30d)")
	s.output.addFlags(cmd, "the name")
	return cmd
}

// portRange reads START-END, or a port alone.
func portRange(text string) (start, end int, err error) {
	first, last, found := strings.Cut(text, "-")
	if !found {
		last = first
	}
	if start, err = strconv.Atoi(first); err == nil {
		end, err = strconv.Atoi(last)
	}
	if err != nil {
		return 0, 0, Usage("%q is no range of ports, such as 20000-20099", text)
	}
	return start, end, nil
}

func serviceListCommand() *cobra.Command {
	cmd, s := newCommand(&cobra.Command{
		Use:     "ls",
		Short:   "List the services of the pool",
		Long:    "List the services of the pool, by range.\n\n" + exitCodes,
		Example: "  portmaster service ls\n  portmaster service ls --pool default -o json",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, s *session, _ []string) error {
		return printAll(s.output, services, s.client.Services(ctx))
	})
	s.output.addFlags(cmd, "the names")
	return cmd
}

func serviceGetCommand() *cobra.Command {
	cmd, s := newCommand(&cobra.Command{
		Use:     "get NAME",
		Short:   "Read a service and count its ports",
		Long:    "Read a service and count its ports.\n\n" + exitCodes,
		Example: "  portmaster service get ci",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		service, err := s.client.Service(ctx, args[0])
		if err != nil {
			return err
		}
		return printOne(s.output, services, service)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	s.output.addFlags(cmd, "the name")
	return cmd
}

func serviceRemoveCommand() *cobra.Command {
	cmd, s := newCommand(&cobra.Command{
		Use:     "rm NAME...",
		Short:   "Remove services",
		Long:    "Remove services, in this order, up to one of which a port is allocated or on offer.\n\n" + exitCodes,
		Example: "  portmaster service rm web",
		Args:    cobra.MinimumNArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		for _, name := range args {
			if err := s.client.Remove(ctx, name); err != nil {
				return err
			}
		}
		return nil
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	s.output.addQuiet(cmd)
	return cmd
}

func poolsCommand() *cobra.Command {
	cmd, s := newCommand(&cobra.Command{
		Use:     "pools",
		Short:   "List the pools of the server",
		Long:    "List the pools of the server that have a service, by name.\n\n" + exitCodes,
		Example: "  portmaster pools",
		Args:    cobra.NoArgs,
	}, func(ctx context.Context, s *session, _ []string) error {
		return printAll(s.output, pools, s.client.Pools(ctx))
	})
	s.output.addFlags(cmd, "the names")
	return cmd
}
