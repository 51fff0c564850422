package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
	"github.com/spf13/cobra"

	"portmaster/client"
	"portmaster/cmd/portmaster/transfer"
)

// LocalCheck compares the sockets of this machine with the allocations of a pool.
type LocalCheck struct {
	Server  Server
	Adopt   bool   // claim the ports that are used and nobody's
	Secrets string // the file for the secrets of what is adopted
}

// Run prints what is allocated and silent, and what listens and is nobody's. Findings are an error.
func (l LocalCheck) Run(cmd *cobra.Command) error {
	c, err := l.Server.Client(client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	return l.run(cmd.Context(), c, cmd.OutOrStdout())
}

// listening returns the ports on which this machine listens, TCP or UDP, and by which programs, if that can be told.
func listening(ctx context.Context) (map[int]string, error) {
	connections, err := net.ConnectionsWithContext(ctx, "inet")
	if err != nil {
		return nil, fmt.Errorf("the sockets of this machine cannot be listed: %w", err)
	}
	const udp = 2 // SOCK_DGRAM everywhere
	ports := map[int]string{}
	for _, c := range connections {
		if c.Status != "LISTEN" && (c.Type != udp || c.Raddr.Port != 0) {
			continue
		}
		program := ""
		if p, err := process.NewProcessWithContext(ctx, c.Pid); c.Pid > 0 && err == nil {
			program, _ = p.NameWithContext(ctx)
		}
		port := int(c.Laddr.Port)
		ports[port] = cmp.Or(ports[port], program)
	}
	return ports, nil
}

func (l LocalCheck) run(ctx context.Context, c *client.Client, out io.Writer) error {
	ports, err := listening(ctx)
	if err != nil {
		return err
	}
	var adopted []transfer.Line
	silent, unknown := 0, 0
	for service, err := range c.Services(ctx) {
		if err != nil {
			return err
		}
		owned := map[int]bool{}
		for a, err := range c.Allocations(ctx, service.Name) {
			if err != nil {
				return err
			}
			quiet := true
			for port := a.Port; port < a.Port+a.Count; port++ {
				owned[port] = true
				_, listens := ports[port]
				quiet = quiet && !listens
			}
			if quiet {
				silent++
				fmt.Fprintf(out, "%s %d %s: allocated, and nothing on this machine listens\n", service.Name, a.Port, a.Name)
			}
		}
		for _, port := range slices.Sorted(maps.Keys(ports)) {
			if !service.Has(port) || owned[port] {
				continue
			}
			unknown++
			program := cmp.Or(ports[port], "a program")
			fmt.Fprintf(out, "%s %d: %s listens, and nobody has the port\n", service.Name, port, printable(program))
			adopted = append(adopted, transfer.Line{Pool: l.Server.Pool, Allocation: &client.Allocation{
				Service: service.Name, Name: adoptedName(program, port), Port: port, Count: 1,
			}})
		}
	}
	if l.Adopt && unknown > 0 {
		return l.claim(ctx, c, out, adopted)
	}
	if silent+unknown > 0 {
		return &Exit{codeError, fmt.Errorf("%d allocations are silent here, %d ports are used without one", silent, unknown)}
	}
	return nil
}

func (l LocalCheck) claim(ctx context.Context, c *client.Client, out io.Writer, adopted []transfer.Line) error {
	plan, err := transfer.MakePlan(ctx, c, adopted)
	if err != nil {
		return err
	}
	if err := plan.Import(ctx, c, l.Secrets, nil); err != nil {
		return err
	}
	for _, line := range plan.Claim {
		fmt.Fprintf(out, "%s %d: claimed for %s\n", line.Allocation.Service, line.Allocation.Port, line.Allocation.Name)
	}
	if len(plan.Faults) > 0 {
		return &Exit{codeConflict, fmt.Errorf("%d ports could not be claimed: %s", len(plan.Faults), plan.Faults[0])}
	}
	return nil
}

// adoptedName is the instance name for a port that is adopted: host-program-port.
func adoptedName(program string, port int) string {
	host, _ := os.Hostname()
	host, _, _ = strings.Cut(host, ".")
	name := strings.Map(func(r rune) rune {
		if strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-", r) {
			return r
		}
		return '-'
	}, host+"-"+program)
	name = strings.Trim(name[:min(len(name), 56)], "-")
	return strings.Trim(fmt.Sprintf("%s-%d", name, port), "-")
}
