package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

func watchCommand() *cobra.Command {
	var after string
	cmd, s := newCommand(&cobra.Command{
		Use:   "watch [SERVICE]",
		Short: "Print what happens to a service and its ports, or to all of the pool",
		Long: "Print what happens to a service and its ports, or to all services of the pool, as it happens: a line for each event. It goes on when\n" +
			"the server restarts, and misses nothing; the event reset says that the server does not know all that happened meanwhile.\n" +
			"Interrupt it to end it, with exit code 130.\n\n" + exitCodes,
		Example: "  portmaster watch\n" +
			"  portmaster watch ci -o json | jq --unbuffered -r .name",
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		return s.watch(ctx, strings.Join(args, ""), after)
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	cmd.Flags().StringVar(&after, "after", "", "begin after the event that has this ID, which -o json and -q print")
	s.output.addEventFlags(cmd)
	return cmd
}

func (s *session) watch(ctx context.Context, service, after string) error {
	lost := false
	s.again = func(failed error, _ time.Duration) {
		if !lost {
			s.tell("%v; trying again", failed)
		}
		lost = true
	}
	began := false
	for e, err := range s.client.Events(ctx, service, after) {
		switch {
		case ctx.Err() != nil:
			return &Exit{Code: codeInterrupted}
		case err != nil:
			return err
		case e.Kind == client.EventReady && lost:
			s.tell("connected again")
			lost = false
		}
		if !began {
			began = true
			if err := s.output.eventHeads(); err != nil {
				return err
			}
		}
		if e.Kind != client.EventReady {
			if err := s.output.event(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// tell says on stderr what is no event.
func (s *session) tell(format string, args ...any) {
	if !s.output.quiet {
		fmt.Fprintln(s.stderr, "portmaster:", printable(strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")))
	}
}

// eventWidths are those of the columns of a table that is not known as a whole.
var eventWidths = []int{24, 9, 16, 11, 24, 16, 0}

func (o output) eventHeads() error {
	if o.quiet || o.noHeaders || o.format == asJSON {
		return nil
	}
	return o.eventRow(events.heads)
}

// event prints one event on a line.
func (o output) event(e client.Event) error {
	switch {
	case o.quiet:
		return o.line(events.id(e))
	case o.format == asJSON:
		return json.NewEncoder(o.to).Encode(e)
	}
	return o.eventRow(events.row(e))
}

func (o output) eventRow(cells []string) error {
	var line strings.Builder
	for i, cell := range cells {
		fmt.Fprintf(&line, "%-*s  ", eventWidths[i], printable(cell))
	}
	return o.line(strings.TrimRight(line.String(), " "))
}
