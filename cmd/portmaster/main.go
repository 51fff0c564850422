// Portmaster hands out network ports, so that no two holders ever get the same one.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"portmaster/cmd/portmaster/cli"
	"portmaster/cmd/portmaster/exec"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from the first signal on, a second one ends the program at once
	os.Exit(cli.Execute(ctx, command(), os.Stderr))
}

// command returns the command line: one subcommand a file.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "portmaster",
		Short:         "Hand out network ports, so that no two holders ever get the same one",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(serveCommand(), healthcheckCommand(), recoverCommand(), checkCommand(), tokenCommand(), benchCommand())
	cli.AddTo(root)
	root.AddCommand(exec.Command())
	return root
}

// release is set by the linker (-X main.release=), as in make build and the Dockerfile.
var release string

// version names the release, or the commit, that this program was built from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
