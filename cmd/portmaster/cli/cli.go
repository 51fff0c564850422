// Package cli is the command line for those who use a server: a command for each act of the API. server.go has what all commands share
// that ask a server, exit.go what they end with, output.go how they print.
package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Group is the group of the commands that ask a server, in the help of the program.
const Group = "ask"

// AddTo adds the commands to the program.
func AddTo(root *cobra.Command) {
	root.AddGroup(&cobra.Group{ID: Group, Title: "Commands that ask a server:"})
	for _, cmd := range []*cobra.Command{
		serviceCommand(), offerCommand(), acceptCommand(), rejectCommand(), claimCommand(), renewCommand(), labelCommand(),
		listCommand(), getCommand(), freeCommand(), waitingCommand(), releaseCommand(), historyCommand(), watchCommand(),
		poolsCommand(), exportCommand(), importCommand(), mcpCommand(),
	} {
		cmd.GroupID = Group
		root.AddCommand(cmd)
	}
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Example = "  source <(portmaster completion bash)"
			for _, shell := range cmd.Commands() {
				shell.Example = "  portmaster completion " + shell.Name()
			}
		}
	}
}

// duration is a flag for a duration as the API has it: 90, 1.5, 1h30m or 30d.
type duration time.Duration

// DurationVar adds such a flag for d, with a default.
func DurationVar(f *pflag.FlagSet, d *time.Duration, name string, value time.Duration, usage string) {
	*d = value
	f.Var((*duration)(d), name, usage)
}

func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (*duration) Type() string { return "duration" }

func (d *duration) Set(text string) error {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		days, rest = "", text
	}
	number, err := strconv.ParseFloat(days, 64)
	if found && err != nil || !(number <= 1e5) || strings.ContainsAny(text, "+-") {
		return errDuration
	}
	if _, err := strconv.ParseFloat(rest, 64); err == nil {
		rest += "s"
	}
	var span time.Duration
	if rest != "" || !found {
		if span, err = time.ParseDuration(rest); err != nil {
			return errDuration
		}
	}
	if span += time.Duration(number * 24 * float64(time.Hour)); span < 0 {
		return errDuration
	}
	*d = duration(span)
	return nil
}

var errDuration = Usage("must be seconds, such as 90, or a duration, such as 1h30m or 30d")
