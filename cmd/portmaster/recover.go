package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"portmaster/allocator"
	"portmaster/config"
)

func recoverCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Accept the state in Redis after it was lost, or replaced by an older one",
		Long: "Accept the state that is in Redis now. If the state that the servers knew is gone, or Redis has an older one, the\n" +
			"servers hand out no ports, since unknown holders may still use them. Restore the state, or make sure that the ports\n" +
			"are unused; then run this command with the settings of a server. It raises the fences of all pools, so that no two\n" +
			"holders ever have the same fence, and prints what it found.",
		Example: "  PORTMASTER_REDIS_URL=redis://localhost:6379 portmaster recover",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ports, closeStore, err := openAllocator(cmd)
			if err != nil {
				return err
			}
			defer closeStore()
			found, err := ports.Recover(cmd.Context())
			if err != nil {
				return refusedOr(err)
			}
			printRecovery(cmd.OutOrStdout(), found)
			return nil
		},
	}
}

// openAllocator returns an Allocator on the Redis of a server's settings, for a command that works beside the servers.
func openAllocator(cmd *cobra.Command) (ports *allocator.Allocator, closeStore func(), err error) {
	settings, err := config.Load()
	if err != nil {
		return nil, nil, err
	}
	if settings.RedisURL == "" {
		return nil, nil, fmt.Errorf("%s_REDIS_URL is empty: no other process reaches a store inside a server", config.Prefix)
	}
	store, err := openStore(settings, newLogger(cmd.ErrOrStderr(), settings))
	if err != nil {
		return nil, nil, err
	}
	ports = allocator.New(store.client, options(settings))
	if err := ports.Greet(cmd.Context()); err != nil {
		store.Close()
		return nil, nil, refusedOr(err)
	}
	return ports, store.Close, nil
}

// printRecovery prints what was found in Redis, and what may be wrong with it.
func printRecovery(out io.Writer, found allocator.Recovery) {
	if !found.Needed {
		fmt.Fprintln(out, "nothing was lost")
		return
	}
	offered, allocated := 0, 0
	for _, f := range found.Held {
		fmt.Fprintf(out, "pool %s, service %s: %d allocated, %d on offer, %d free\n", f.Pool, f.Service, f.Ports.Allocated, f.Ports.Offered, f.Ports.Free)
		offered, allocated = offered+f.Ports.Offered, allocated+f.Ports.Allocated
	}
	fmt.Fprintf(out, "found %d services with %d allocated ports and %d on offer\n", len(found.Held), allocated, offered)
	if found.Known {
		fmt.Fprintf(out, "this state is about %s older than the one that the servers knew; %d allocations that they acknowledged since are not in it, and their ports may be held twice\n",
			found.Behind, found.Unknown)
	} else {
		fmt.Fprintln(out, "this is not the state that the servers knew: ports that they acknowledged there may be held twice")
	}
	fmt.Fprintln(out, "recovered: the servers hand out ports again within a second or two")
}
