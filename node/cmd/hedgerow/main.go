// Command hedgerow is a firewall that learns: one binary on each site gateway.
// This package only parses flags, opens files, turns signals into a context and
// prints; package node is the site.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; see the justfile.
var version = ""

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is main for tests: 0 done, 1 failed, 2 wrong usage.
func run(args []string, in io.Reader, out, errw io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	err := root.ExecuteContext(ctx)
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &u):
		_, _ = fmt.Fprintf(errw, "hedgerow: %v\n", err)
		return 2
	}
	_, _ = fmt.Fprintf(errw, "hedgerow: %v\n", err)
	return 1
}

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

const defaultSocket = "/run/hedgerow/hedgerow.sock"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "hedgerow",
		Short: "A firewall that learns its own site, explains itself, and warns its neighbours",
		Long: `Hedgerow watches a gateway's packets in the kernel, learns what is normal at
this site, suspends and blocks what is not, says why, and shares what it learnt
with the organisation's other sites, peer to peer.

Start here:
  hedgerow demo     the whole story on this machine, in about two minutes
  hedgerow check    what this machine can do, and what to do where it cannot
  hedgerow up       watch this gateway (monitor mode: nothing is ever dropped)`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       versionString(),
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%v (see `%s --help`)%s", err, c.CommandPath(), otherSite(c, err))}
	})
	root.AddGroup(
		&cobra.Group{ID: "start", Title: "To start:"},
		&cobra.Group{ID: "daily", Title: "Every day:"},
		&cobra.Group{ID: "study", Title: "To study:"},
	)
	root.AddCommand(startCommands()...)
	root.AddCommand(dailyCommands()...)
	root.AddCommand(feedsCommand(), modelsCommand(), consortiumCommand(), federationCommand())
	root.AddCommand(studyCommands()...)
	return root
}

func versionString() string {
	if version != "" {
		return version
	}
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" && bi.Main.Version != "(devel)" {
		return bi.Main.Version
	}
	return "dev"
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected %q (see `%s --help`)", c.CommandPath(), args[0], c.CommandPath())}
	}
	return nil
}

func exactArgs(n int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s: expected %s, got %d arguments (see `%s --help`)", c.CommandPath(), names, len(args), c.CommandPath())}
		}
		return nil
	}
}

// otherSite is a hint for who names a configuration to a command that asks the daemon.
func otherSite(c *cobra.Command, err error) string {
	if c.Flags().Lookup("socket") == nil || !strings.Contains(err.Error(), "--config") {
		return ""
	}
	return ": the daemon is asked by its socket: name it with --socket, as site.socket says"
}
