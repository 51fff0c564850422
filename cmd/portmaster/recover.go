package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"portmaster/allocator"
	"portmaster/config"
)

func recoverCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "recover",
		Short: "Let ports be handed out again after the state in Redis was lost",
		Long: "Declare the state that is in Redis now to be the one that counts. The servers refuse to hand out ports when the state\n" +
			"that they knew is gone, since its holders may still use theirs: bring it back from a backup, or make sure that\n" +
			"nobody does, and then run this with the settings of a server.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := config.Load()
			if err != nil {
				return err
			}
			if settings.RedisURL == "" {
				return fmt.Errorf("%s_REDIS_URL is empty: a store inside a process cannot be recovered", config.Prefix)
			}
			store, err := openStore(settings, newLogger(cmd.ErrOrStderr(), settings))
			if err != nil {
				return err
			}
			defer store.Close()
			needed, err := allocator.New(store.client, options(settings)).Recover(cmd.Context())
			if err != nil {
				return cmp.Or(refused(err), err)
			}
			if needed {
				fmt.Fprintln(cmd.OutOrStdout(), "recovered: the servers hand out ports again within a second or two")
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was lost")
			}
			return nil
		},
	}
}
