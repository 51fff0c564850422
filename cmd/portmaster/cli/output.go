package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// output is how a command prints, and where.
type output struct {
	format           string
	noHeaders, quiet bool
	noEnv            bool // env is no format of the command
	to               io.Writer
}

const (
	asTable = "table"
	asJSON  = "json"
	asEnv   = "env"
)

// addFlags adds the flags of a command that prints. quiet says what it prints with -q.
func (o *output) addFlags(cmd *cobra.Command, quiet string) {
	f := cmd.Flags()
	f.StringVarP(&o.format, "output", "o", asTable, "output format: table, json, or env (lines of NAME=value)")
	f.BoolVar(&o.noHeaders, "no-headers", false, "print a table without its heading")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print "+quiet+" only")
	formats := func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if o.noEnv {
			return []cobra.Completion{asTable, asJSON}, cobra.ShellCompDirectiveNoFileComp
		}
		return []cobra.Completion{asTable, asJSON, asEnv}, cobra.ShellCompDirectiveNoFileComp
	}
	_ = cmd.RegisterFlagCompletionFunc("output", formats)
}

// addEventFlags adds the flags of a command that prints events.
func (o *output) addEventFlags(cmd *cobra.Command) {
	o.addFlags(cmd, "the IDs")
	o.noEnv = true
	cmd.Flags().Lookup("output").Usage = "output format: table or json"
}

// addQuiet adds the flag that a command has, too, which prints nothing.
func (o *output) addQuiet(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
}

func (o output) check() error {
	if o.noEnv && o.format != asTable && o.format != asJSON {
		return Usage("--output must be table or json, not %q", o.format)
	}
	switch o.format {
	case "", asTable, asJSON, asEnv:
		return nil
	}
	return Usage("--output must be table, json or env, not %q", o.format)
}

// kind is how items of a type are printed.
type kind[T any] struct {
	heads []string
	row   func(T) []string // of a table
	vars  func(T) []string // NAME=value; of an item that is not in a list
	entry func(T) []string // NAME=value; of an item in a list
	id    func(T) string   // with -q
}

// printOne prints one item.
func printOne[T any](o output, k kind[T], item T) error {
	switch {
	case o.quiet:
		return o.line(k.id(item))
	case o.format == asJSON:
		return json.NewEncoder(o.to).Encode(item)
	case o.format == asEnv:
		return o.line(strings.Join(k.vars(item), "\n"))
	}
	return o.table(k.heads, [][]string{k.row(item)})
}

// printAll prints a list.
func printAll[T any](o output, k kind[T], list iter.Seq2[T, error]) error {
	items := []T{}
	for item, err := range list {
		if err != nil {
			return err
		}
		items = append(items, item)
	}
	switch {
	case o.quiet:
		for _, item := range items {
			if err := o.line(k.id(item)); err != nil {
				return err
			}
		}
		return nil
	case o.format == asJSON:
		return json.NewEncoder(o.to).Encode(items)
	case o.format == asEnv:
		return printEntries(o, k, items)
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		rows[i] = k.row(item)
	}
	return o.table(k.heads, rows)
}

// printEntries prints the variables of each item. Nothing is printed if two have the same, as those of web-1 and web.1 have.
func printEntries[T any](o output, k kind[T], items []T) error {
	var lines []string
	seen := map[string]bool{}
	for _, item := range items {
		for _, line := range k.entry(item) {
			name, value, _ := strings.Cut(line, "=")
			if name = variable(name); seen[name] {
				return fmt.Errorf("two items would be %s; use -o json", name)
			}
			seen[name] = true
			lines = append(lines, name+"="+value+"\n")
		}
	}
	_, err := io.WriteString(o.to, strings.Join(lines, ""))
	return err
}

// variable makes the name of a variable of a text: in capitals, with _ for what none may have.
func variable(text string) string {
	return strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return '_'
		}
		return unicode.ToUpper(r)
	}, text)
}

func (o output) line(text string) error {
	_, err := fmt.Fprintln(o.to, text)
	return err
}

func (o output) table(heads []string, rows [][]string) error {
	if !o.noHeaders {
		rows = append([][]string{heads}, rows...)
	}
	t := tabwriter.NewWriter(o.to, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return t.Flush()
}

// printable replaces what a terminal would take for a command.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
}

// age says how long ago a time was, by this machine's clock.
func age(t time.Time) string { return span(time.Since(t)) }

// until says how far off a time is; "-" is never.
func until(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(time.Until(t))
}

// span says a duration in the largest unit of which it has two.
func span(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= 2*unit.length {
			return strconv.Itoa(int(d.Round(unit.length)/unit.length)) + unit.name
		}
	}
	return strconv.Itoa(int(d/time.Second)) + "s"
}
