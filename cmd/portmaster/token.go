package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"portmaster/cmd/portmaster/cli"
	"portmaster/config"
	"portmaster/handlers/identity"
)

func tokenCommand() *cobra.Command {
	var role, scope, expires string
	var held, rate int
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for a caller",
		Long: "Make a random token, and print two lines: the token, which is shown only this once, and its line for the file\n" +
			config.Prefix + "_AUTH_TOKENS_FILE of the servers, which has only the hash of the token. NAME is the owner of\n" +
			"the ports that the caller gets. The command asks no server.",
		Example: "  portmaster token ci --role client --scope 'default/ci-*' --held 200 --rate 50 --expires 2027-06-01\n" +
			"  portmaster token prometheus --role reader --scope '*/*' | tee /dev/stderr | tail -n 1 >>\"$(mktemp)\"",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var options []string
			for _, limit := range []struct {
				name  string
				value int
			}{{"held", held}, {"rate", rate}} {
				if cmd.Flags().Changed(limit.name) {
					options = append(options, limit.name+"="+strconv.Itoa(limit.value))
				}
			}
			if expires != "" {
				options = append(options, "expires="+expires)
			}
			if options == nil {
				options = []string{"-"}
			}
			token := identity.NewToken()
			line, err := identity.Line(args[0], identity.Role(role), scope, strings.Join(options, ","), token)
			if err != nil {
				return cli.Usage("%w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n", token, line)
			return err
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "what the caller may do: reader, client or operator")
	cmd.Flags().StringVar(&scope, "scope", "", "which services: globs POOL/SERVICE, joined by commas")
	cmd.Flags().IntVar(&held, "held", 0, "the most ports that the caller may hold in a pool")
	cmd.Flags().IntVar(&rate, "rate", 0, "the most calls a second on each server")
	cmd.Flags().StringVar(&expires, "expires", "", "the last day of the token, in UTC, such as 2027-06-01")
	cmd.MarkFlagRequired("role")
	cmd.MarkFlagRequired("scope")
	return cmd
}
