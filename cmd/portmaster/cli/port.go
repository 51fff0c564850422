package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portmaster/client"
)

// secretHelp is what the help says of --secret.
const secretHelp = "secret of the allocation; better in " + secretVariable + ", which other users of this machine do not see"

// inUseHelp is what the help says of --in-use.
const inUseHelp = "something else uses the port, which is then not handed out for a while"

// named returns an allocation as the arguments name it: SERVICE and its port or its instance name, of which digits are a port, or
// SERVICE alone, and the value of --name.
func named(args []string, name string) (client.Allocation, error) {
	a := client.Allocation{Service: args[0], Name: name}
	switch {
	case len(args) == 1 && name == "":
		return a, Usage("name an allocation: by NAME, PORT or --name")
	case len(args) == 1:
		return a, nil
	case name != "":
		return a, Usage("--name cannot be combined with NAME or PORT")
	}
	if strings.Trim(args[1], "0123456789") != "" {
		a.Name = args[1]
		return a, nil
	}
	var err error
	if a.Port, err = strconv.Atoi(args[1]); err != nil || a.Port < 1 || a.Port > 65535 {
		return a, Usage("%q is no port; a name of digits is given by --name", args[1])
	}
	return a, nil
}

// addName adds the flag for a name that would be a port as an argument.
func addName(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "name", "", "in place of NAME|PORT, for a name of digits only")
}

// secretGiven returns the secret that a flag gives, or else the environment.
func secretGiven(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if secret := os.Getenv(secretVariable); secret != "" {
		return secret, nil
	}
	return "", Usage("there is no --secret, and no %s", secretVariable)
}

func renewCommand() *cobra.Command {
	var lease duration
	var secret, name string
	cmd, s := newCommand(&cobra.Command{
		Use:   "renew SERVICE NAME|PORT",
		Short: "Start the lease of an allocation again",
		Long: "Start the lease of an allocation again: for as long as before, or as --lease says, which an allocation without a lease\n" +
			"needs. The secret is that of the claim or the offer.\n\n" + exitCodes,
		Example: "  export PORTMASTER_SECRET=$(portmaster claim ci job-6 --lease 10m -o json | jq -r .secret)\n" +
			"  portmaster renew ci job-6",
		Args: cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		a, err := named(args, name)
		if err != nil {
			return err
		}
		if a.Secret, err = secretGiven(secret); err != nil {
			return err
		}
		a, err = s.client.Renew(ctx, a, time.Duration(lease))
		if err != nil {
			return err
		}
		return printOne(s.output, allocations, a)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames, instanceNames)
	addName(cmd.Flags(), &name)
	cmd.Flags().Var(&lease, "lease", "how long it lasts from now on (1s to 30d)")
	cmd.Flags().StringVar(&secret, "secret", "", secretHelp)
	s.output.addFlags(cmd, "the port")
	return cmd
}

func releaseCommand() *cobra.Command {
	var fence int64
	var secret, name string
	var inUse bool
	var of client.Filter
	cmd, s := newCommand(&cobra.Command{
		Use:   "release SERVICE NAME|PORT",
		Short: "Release an allocation",
		Long: "Release an allocation. With its secret or its fence, no other allocation is released, and the command can be repeated.\n" +
			"With neither, whoever has the port or the name by now loses it, unless the server refuses. Without a name, --owner,\n" +
			"--name-prefix and --label release all allocations of the service that match each of them that is given.\n\n" + exitCodes,
		Example: "  portmaster release ci web-01\n" +
			"  portmaster release ci --label job=4711\n" +
			"  portmaster release ci job-6 --in-use\n" +
			"  portmaster release ci web-02 --fence \"$(portmaster get ci web-02 -o json | jq .fence)\"",
		Args: cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		switch {
		case (len(args) == 2 || name != "") && of != client.Filter{}:
			return Usage("--owner, --name-prefix and --label cannot be combined with a name or a port")
		case of != client.Filter{}:
			if secret != "" || fence != 0 || inUse {
				return Usage("--secret, --fence and --in-use are of one allocation")
			}
			released, err := s.client.ReleaseAll(ctx, args[0], of)
			if err == nil && !s.output.quiet {
				err = s.output.line(fmt.Sprintf("%d released", released))
			}
			return err
		case len(args) == 1 && name == "":
			return Usage("name an allocation, or say with --owner, --name-prefix or --label which ones")
		}
		a, err := named(args, name)
		if err != nil {
			return err
		}
		if a.Fence, a.Secret = fence, secret; secret == "" && fence == 0 {
			a.Secret = os.Getenv(secretVariable)
		}
		if inUse {
			return s.client.ReleaseInUse(ctx, a)
		}
		return s.client.Release(ctx, a)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames, instanceNames)
	addName(cmd.Flags(), &name)
	cmd.Flags().Int64Var(&fence, "fence", 0, "fence of the allocation")
	cmd.Flags().StringVar(&secret, "secret", "", secretHelp)
	cmd.Flags().BoolVar(&inUse, "in-use", false, inUseHelp)
	addFilter(cmd.Flags(), &of, "release")
	cmd.MarkFlagsMutuallyExclusive("fence", "secret")
	s.output.addQuiet(cmd)
	return cmd
}

func getCommand() *cobra.Command {
	var name string
	cmd, s := newCommand(&cobra.Command{
		Use:     "get SERVICE NAME|PORT",
		Short:   "Read an allocation: which port a name has, or who has a port",
		Long:    "Read an allocation: which port a name has, or who has a port, which may be any of a block.\n\n" + exitCodes,
		Example: "  portmaster get ci web-01 -q\n  portmaster get ci 20010 -o json",
		Args:    cobra.RangeArgs(1, 2),
	}, func(ctx context.Context, s *session, args []string) error {
		a, err := named(args, name)
		if err != nil {
			return err
		}
		if a.Name != "" {
			a, err = s.client.AllocationByName(ctx, a.Service, a.Name)
		} else {
			a, err = s.client.Allocation(ctx, a.Service, strconv.Itoa(a.Port))
		}
		if err != nil {
			return err
		}
		return printOne(s.output, listed(allocations), a)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames, instanceNames)
	addName(cmd.Flags(), &name)
	s.output.addFlags(cmd, "the port")
	return cmd
}

func listCommand() *cobra.Command {
	var open bool
	var of client.Filter
	cmd, s := newCommand(&cobra.Command{
		Use:     "ls SERVICE",
		Short:   "List the allocations of a service, or its open offers",
		Long:    "List the allocations of a service, or its open offers, by port.\n\n" + exitCodes,
		Example: "  portmaster ls ci\n  portmaster ls ci --label job=4711 -o json\n  portmaster ls ci --offers --no-headers",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		if open {
			return printAll(s.output, listed(offers), s.client.OffersOf(ctx, args[0], of))
		}
		return printAll(s.output, listed(allocations), s.client.AllocationsOf(ctx, args[0], of))
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().BoolVar(&open, "offers", false, "list the open offers")
	addFilter(cmd.Flags(), &of, "list")
	cmd.Flags().StringVar(&of.Name, "name", "", "list that of this name only")
	s.output.addFlags(cmd, "the ports")
	return cmd
}
