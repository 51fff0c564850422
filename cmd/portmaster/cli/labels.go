package cli

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"portmaster/client"
)

// labels is the value of a flag that may be given several times, each time as KEY=VALUE.
type labels map[string]string

// LabelVar adds a flag that adds a label each time that it is given.
func LabelVar(f *pflag.FlagSet, to *map[string]string, name, usage string) {
	*to = map[string]string{}
	f.Var((*labels)(to), name, usage)
}

func (l *labels) Type() string { return "KEY=VALUE" }

func (l *labels) String() string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(*l)) {
		pairs = append(pairs, key+"="+(*l)[key])
	}
	return strings.Join(pairs, ",")
}

// Set adds a label.
func (l *labels) Set(text string) error {
	key, value, isPair := strings.Cut(text, "=")
	if !isPair || key == "" {
		return errors.New("must be KEY=VALUE, such as job=4711")
	}
	if _, has := (*l)[key]; has {
		return errors.New("this key is given twice")
	}
	(*l)[key] = value
	return nil
}

// addFilter adds the flags of a command that is about some of a service's offers or allocations. verb says what it does with them.
func addFilter(f *pflag.FlagSet, to *client.Filter, verb string) {
	f.StringVar(&to.Owner, "owner", "", verb+" those of this owner only")
	f.StringVar(&to.NamePrefix, "name-prefix", "", verb+" those only whose names begin so")
	f.StringVar(&to.Label, "label", "", verb+" those only that have this label: `KEY=VALUE`")
}

func labelCommand() *cobra.Command {
	var secret, name string
	cmd, s := newCommand(&cobra.Command{
		Use:   "label SERVICE NAME|PORT KEY=VALUE|KEY-...",
		Short: "Change the labels of an allocation",
		Long: "Change the labels of an allocation, in one step: KEY=VALUE sets one, and KEY- removes one. Others stay. The secret is that\n" +
			"of the claim or the offer.\n\n" + exitCodes,
		Example: "  export PORTMASTER_SECRET=$(portmaster claim ci job-8 --label job=4711 -o json | jq -r .secret)\n" +
			"  portmaster label ci job-8 stage=test job-",
		Args: cobra.MinimumNArgs(2),
	}, func(ctx context.Context, s *session, args []string) error {
		which := 2
		if name != "" {
			which = 1
		}
		a, err := named(args[:which], name)
		if err != nil {
			return err
		}
		changes, err := labelChanges(args[which:])
		if err != nil {
			return err
		}
		if a.Secret, err = secretGiven(secret); err != nil {
			return err
		}
		if a, err = s.client.ChangeLabels(ctx, a, changes); err != nil {
			return err
		}
		return printOne(s.output, allocations, a)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames, instanceNames)
	cmd.Flags().StringVar(&secret, "secret", "", secretHelp)
	addName(cmd.Flags(), &name)
	s.output.addFlags(cmd, "the port")
	return cmd
}

// labelChanges reads arguments KEY=VALUE, which set a label, and KEY-, which remove one.
func labelChanges(args []string) (map[string]*string, error) {
	changes := map[string]*string{}
	for _, arg := range args {
		key, value, sets := strings.Cut(arg, "=")
		key, removes := strings.CutSuffix(key, "-")
		if key == "" || sets == removes {
			return nil, Usage("%q is neither KEY=VALUE nor KEY-", arg)
		}
		if _, twice := changes[key]; twice {
			return nil, Usage("the label %s is given twice", key)
		}
		if changes[key] = nil; sets {
			changes[key] = &value
		}
	}
	return changes, nil
}
