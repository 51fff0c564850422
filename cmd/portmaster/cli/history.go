package cli

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

// events are printed with their service, since those of a pool are of several.
var events = kind[client.Event]{
	heads: []string{"TIME", "EVENT", "SERVICE", "PORT", "NAME", "OWNER", "UNTIL"},
	row: func(e client.Event) []string {
		which := ports(e.Port, e.Count)
		switch {
		case e.End > 0: // the service's
			which = ports(e.Start, e.End-e.Start+1)
		case e.Port == 0:
			which = "-"
		}
		end := e.Until
		if !e.Expired.IsZero() {
			end = e.Expired
		}
		return []string{exact(e.Time), string(e.Kind), e.Service, which, orDash(e.Name), orDash(e.Owner), orDash(exact(end))}
	},
	id: func(e client.Event) string { return e.ID },
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func historyCommand() *cobra.Command {
	var f client.HistoryFilter
	cmd, s := newCommand(&cobra.Command{
		Use:   "history SERVICE",
		Short: "List what happened to a service and its ports",
		Long: "List what happened to a service and its ports, the latest first: who got which port and who gave it back, and when the service\n" +
			"was defined, changed or removed. UNTIL is when a lease ends or ended. --at lists who had a port, or which port a name had, at that\n" +
			"time. A time is RFC 3339, such as 2026-11-22T14:00:00Z, or a duration ago, such as 2h or 1d.\n\n" + exitCodes,
		Example: "  portmaster history ci --since 2h\n" +
			"  portmaster history ci --port 20000 --at 90s\n" +
			"  portmaster history ci --name web-01 -o json",
		Args: cobra.ExactArgs(1),
	}, func(ctx context.Context, s *session, args []string) error {
		if !f.At.IsZero() && f.Port == 0 && f.Name == "" {
			return Usage("--at needs --port or --name")
		}
		return printAll(s.output, events, s.client.History(ctx, args[0], f))
	})
	cmd.ValidArgsFunction = s.complete(serviceNames)
	flags := cmd.Flags()
	flags.Var((*port)(&f.Port), "port", "of this port only, or of the block that it is in")
	flags.StringVar(&f.Name, "name", "", "of this instance name only")
	flags.StringVar(&f.Owner, "owner", "", "of this owner only")
	flags.Var((*moment)(&f.Since), "since", "what happened from this time on")
	flags.Var((*moment)(&f.Until), "until", "what happened before this time")
	flags.Var((*moment)(&f.At), "at", "who had the --port, or what the --name had, at this time")
	s.output.addEventFlags(cmd)
	return cmd
}

// port is a flag for a port.
type port int

func (p *port) String() string {
	if *p == 0 {
		return ""
	}
	return strconv.Itoa(int(*p))
}

func (*port) Type() string { return "port" }

func (p *port) Set(text string) error {
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil || number == 0 {
		return Usage("must be within 1-65535")
	}
	*p = port(number)
	return nil
}

// moment is a flag for a time: as RFC 3339 has it, or how long ago it was.
type moment time.Time

func (m *moment) String() string { return exact(time.Time(*m)) }

func (*moment) Type() string { return "time" }

func (m *moment) Set(text string) error {
	t, err := time.Parse(time.RFC3339, text)
	var ago duration
	switch {
	case err == nil:
		*m = moment(t)
	case ago.Set(text) == nil:
		*m = moment(time.Now().Add(-time.Duration(ago)))
	default:
		return Usage("must be a time such as 2026-11-22T14:00:00Z, or a duration ago such as 2h or 1d")
	}
	return nil
}
