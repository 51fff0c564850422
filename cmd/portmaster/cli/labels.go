package cli

import (
	"errors"
	"maps"
	"slices"
	"strings"

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
