package cli

import (
	"context"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"portmaster/client"
)

// What a shell completes is asked of the server, which has completionTime for it, and of a list no more than maxCompletions.
const (
	completionTime = 2 * time.Second
	maxCompletions = 1000
)

// completion completes an argument; args are those in front of it.
type completion func(ctx context.Context, c *client.Client, args []string) []cobra.Completion

// complete completes the arguments in their order, and those that follow as the last one.
func (s *session) complete(arguments ...completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, err := s.server.Client(client.Options{RetryFor: -1})
		if err != nil || len(args) >= len(arguments) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, stop := context.WithTimeout(context.Background(), completionTime)
		defer stop()
		return arguments[len(args)](ctx, c, args), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteService completes the first argument of a command, if that is a service.
func (s *Server) CompleteService(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return (&session{server: *s}).complete(serviceNames)(cmd, args, text)
}

// completePools completes --pool.
func (s *Server) completePools(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := s.Client(client.Options{RetryFor: -1})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, stop := context.WithTimeout(context.Background(), completionTime)
	defer stop()
	return namesOf(c.Pools(ctx), func(p client.Pool) string { return p.Name }), cobra.ShellCompDirectiveNoFileComp
}

func serviceNames(ctx context.Context, c *client.Client, _ []string) []cobra.Completion {
	return namesOf(c.Services(ctx), func(s client.Service) string {
		return cobra.CompletionWithDesc(s.Name, printable(portsOf(s)+" "+s.Description))
	})
}

func instanceNames(ctx context.Context, c *client.Client, args []string) []cobra.Completion {
	return namesOf(c.Allocations(ctx, args[0]), func(a client.Allocation) string {
		if strings.Trim(a.Name, "0123456789") == "" { // as an argument it would be a port
			return cobra.CompletionWithDesc(strconv.Itoa(a.Port), a.Name)
		}
		return cobra.CompletionWithDesc(a.Name, ports(a.Port, a.Count))
	})
}

// namesOf reads names up to an error: what is known by then is better than nothing.
func namesOf[T any](items iter.Seq2[T, error], name func(T) string) (names []cobra.Completion) {
	for item, err := range items {
		if err != nil || len(names) == maxCompletions {
			break
		}
		names = append(names, name(item))
	}
	return names
}

// each is a list of items that are there.
func each[T any](items []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}
