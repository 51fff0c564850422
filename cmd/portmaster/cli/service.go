package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

func serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Short:   "Define, change, read and remove services",
		Long:    "Define, change, read and remove services. A service is a name for ports of a pool.\n\n" + exitCodes,
		Example: "  portmaster service define ci 20000-20099\n  portmaster service ls",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usage("there is no command %q of %s; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return cmd.Help()
		},
	}
	cmd.AddCommand(serviceDefineCommand(), serviceChangeCommand(), serviceListCommand(), serviceGetCommand(), serviceRemoveCommand())
	return cmd
}

func serviceDefineCommand() *cobra.Command {
	var f definitionFlags
	cmd, s := newCommand(&cobra.Command{
		Use:   "define NAME START-END[,START-END...]",
		Short: "Define a service, or change it",
		Long: "Define a service that hands out the ports from START to END, of up to 32 ranges, or change the ranges, the description,\n" +
			"the cooldown and the leases of the one that has this name. What no flag gives becomes empty. The first service of a pool creates the pool.\n" +
			"With --drain, the ranges may leave out ports that are held: nobody else gets those, and they are gone when they are given back.\n\n" +
			exitCodes,
		Example: "  portmaster service define ci 20000-20099\n" +
			"  portmaster service define web 8000-8099 --description 'The web servers' --cooldown 1m\n" +
			"  portmaster service define jobs 30000-30099 --default-lease 1h --max-lease 1d\n" +
			"  portmaster service define games 5000-5099,7000-7099 --exclude 5005,5010-5019",
		Args: cobra.ExactArgs(2),
	}, func(ctx context.Context, s *session, args []string) error {
		d := client.Definition{Name: args[0], Description: f.description, Cooldown: time.Duration(f.cooldown), Pick: f.pick,
			DefaultLease: time.Duration(f.defaultLease), MaxLease: time.Duration(f.maxLease), Drain: f.drain}
		var err error
		if d.Ranges, err = portRanges(strings.Split(args[1], ",")); err != nil {
			return err
		}
		if d.Exclude, err = portRanges(f.exclude); err != nil {
			return err
		}
		if len(d.Ranges) == 1 { // which servers of before ranges understand
			d.Start, d.End, d.Ranges = d.Ranges[0].Start, d.Ranges[0].End, nil
		}
		service, err := s.client.Define(ctx, d)
		return printDefined(s, service, err)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	f.add(cmd)
	s.output.addFlags(cmd, "the name")
	return cmd
}

// definitionFlags are what the flags say that define or change a service.
type definitionFlags struct {
	description, pick                string
	cooldown, defaultLease, maxLease duration
	exclude                          []string
	drain                            bool
}

func (f *definitionFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.description, "description", "", "what the service is for, in at most 256 bytes")
	cmd.Flags().Var(&f.cooldown, "cooldown", "how long a port rests after it was given back (0 to 30d)")
	cmd.Flags().StringVar(&f.pick, "pick", "", "name: a name mostly gets the same port; rested: any gets the one that has been free the longest")
	cmd.Flags().Var(&f.defaultLease, "default-lease", "lease of a request that has none (1s to 30d; 0: --max-lease, if there is one)")
	cmd.Flags().Var(&f.maxLease, "max-lease", "longest lease that can be asked for, also by a renewal (1s to 30d; 0: 30d)")
	cmd.Flags().StringSliceVar(&f.exclude, "exclude", nil, "ports and ranges that the service does not have, such as 5005,5010-5019")
	cmd.Flags().BoolVar(&f.drain, "drain", false, "let held ports leave the ranges: they stay with their holders until they are given back")
}

func serviceChangeCommand() *cobra.Command {
	var f definitionFlags
	var given func(flag string) bool
	cmd, s := newCommand(&cobra.Command{
		Use:   "change NAME [START-END[,START-END...]]",
		Short: "Change a part of the definition of a service",
		Long: "Change a part of the definition of a service: what neither an argument nor a flag gives stays as it is. What is excluded\n" +
			"leaves the ranges that the service has then.\n\n" + exitCodes,
		Example: "  portmaster service change web --cooldown 1m\n  portmaster service change web --exclude 8080",
		Args:    cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		change := client.Change{Drain: f.drain}
		var err error
		if len(args) > 1 {
			if change.Ranges, err = portRanges(strings.Split(args[1], ",")); err != nil {
				return err
			}
		}
		if change.Exclude, err = portRanges(f.exclude); err != nil {
			return err
		}
		if given("description") {
			change.Description = &f.description
		}
		if given("cooldown") {
			change.Cooldown = (*time.Duration)(&f.cooldown)
		}
		if given("pick") {
			change.Pick = &f.pick
		}
		if given("default-lease") {
			change.DefaultLease = (*time.Duration)(&f.defaultLease)
		}
		if given("max-lease") {
			change.MaxLease = (*time.Duration)(&f.maxLease)
		}
		service, err := s.client.Change(ctx, args[0], change)
		return printDefined(s, service, err)
	})
	given = cmd.Flags().Changed
	cmd.ValidArgsFunction = s.complete(serviceNames)
	f.add(cmd)
	s.output.addFlags(cmd, "the name")
	return cmd
}

// printDefined prints a service that was defined or changed.
func printDefined(s *session, service client.Service, err error) error {
	if err != nil {
		return err
	}
	for _, warning := range service.Warnings {
		s.warn(warning)
	}
	if n := service.Ports.Draining; n > 0 {
		s.warn(fmt.Sprintf("held ports outside of the ranges drain: %d", n))
	}
	return printOne(s.output, services, service)
}

// portRanges reads ranges START-END, and ports.
func portRanges(texts []string) (ranges []client.Range, err error) {
	for _, text := range texts {
		first, last, found := strings.Cut(text, "-")
		if !found {
			last = first
		}
		start, startErr := strconv.Atoi(first)
		end, endErr := strconv.Atoi(last)
		if startErr != nil || endErr != nil {
			return nil, Usage("%q is no range of ports, such as 20000-20099", text)
		}
		ranges = append(ranges, client.Range{Start: start, End: end})
	}
	return ranges, nil
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
