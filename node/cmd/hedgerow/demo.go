package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/world"
)

func demoCommand() *cobra.Command {
	var seed uint64
	var attack, learner string
	var asJSON, verbose, software, consortium bool
	c := &cobra.Command{
		Use: "demo", Short: "Tell the whole story on this machine, with real packets, in about two minutes", GroupID: "start",
		Long: `Three branch gateways learn their normal, attackers appear, flows are suspended,
the mesh is asked, blocks land, the other sites are protected before the
attacker reaches them, and a round of learning teaches a site what it missed.

As root it happens in the kernel, between network namespaces that the demo makes
and removes. Without root the same story runs on a packet path in Go. It fails,
and names the step, when something in the story did not happen.

With --consortium it is another story: seven organisations, of which one lies about
indicators and one poisons the models that are made together. Both fail, and a table
says what each honest organisation gained. It runs on the packet path in Go.

The controls: --attack none must end without any suspension, and --learner off
must miss what only learning can see.`,
		Example: "  hedgerow demo\n  hedgerow demo --seed 7 -v\n  hedgerow demo --attack none\n  hedgerow demo --learner off\n  hedgerow demo --consortium",
		Args:    noArgs,
	}
	f := c.Flags()
	f.Uint64Var(&seed, "seed", 0, "varies addresses, ports, rates and order (default: a new one each time, printed)")
	f.StringVar(&attack, "attack", "all", "all, none, or some of scan,brute,beacon,spurt")
	f.StringVar(&learner, "learner", "on", "on or off")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON and nothing else")
	f.BoolVarP(&verbose, "verbose", "v", false, "tell every alert and verdict")
	f.BoolVar(&software, "software", false, "use the packet path in Go although root could use the kernel's")
	f.BoolVar(&consortium, "consortium", false, "seven organisations, of which two lie, in about a minute")
	c.RunE = func(c *cobra.Command, _ []string) error {
		attacks, err := attacksOf(attack)
		if err != nil {
			return err
		}
		if learner != "on" && learner != "off" {
			return usageError{fmt.Errorf("--learner %q: expected on or off", learner)}
		}
		if !c.Flags().Changed("seed") {
			seed = uint64(rand.Uint32N(1_000_000))
		}
		o := demo.Options{
			Scenario: scenario.New(seed), Attacks: attacks, Learner: learner == "on",
			Out: c.OutOrStdout(), JSON: asJSON, Verbose: verbose, Log: demoLog(c.ErrOrStderr(), verbose),
		}
		if consortium {
			if c.Flags().Changed("attack") || c.Flags().Changed("learner") {
				return usageError{errors.New("--consortium: its story has its own attacks: leave --attack and --learner out")}
			}
			return runConsortium(c.Context(), o)
		}
		return runDemo(c.Context(), o, software)
	}
	return c
}

func attacksOf(s string) ([]scenario.Attack, error) {
	switch s {
	case "all":
		return scenario.Attacks(), nil
	case "none":
		return nil, nil
	}
	var out []scenario.Attack
	for name := range strings.SplitSeq(s, ",") {
		if !slices.Contains(scenario.Attacks(), scenario.Attack(name)) {
			return nil, usageError{fmt.Errorf("--attack %q: expected all, none, or some of scan,brute,beacon,spurt", name)}
		}
		out = append(out, scenario.Attack(name))
	}
	return out, nil
}

func demoLog(w io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelError
	if verbose {
		level = slog.LevelWarn
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// runDemo brings the world up, tells the story, and takes the world down,
// whatever happened.
func runDemo(ctx context.Context, o demo.Options, software bool) (err error) {
	wo := world.Options{Learner: o.Learner}
	var closer io.Closer
	if os.Geteuid() == 0 && !software {
		o.Where = "XDP and TCX in the kernel, network namespaces, real sockets"
		self, err := os.Executable()
		if err != nil {
			return err
		}
		w, err := world.UpWire(ctx, o.Scenario, self, wo, o.Log)
		if err != nil {
			return err
		}
		closer, o.Network, o.Sites = w, w, w.Sites
	} else {
		o.Where = "the packet path in Go (as root the kernel's is used)"
		w, err := world.UpSoft(ctx, o.Scenario, wo, o.Log)
		if err != nil {
			return err
		}
		closer, o.Network, o.Sites = w, w, w.Sites
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	_, err = demo.Tell(ctx, o)
	return err
}

// runConsortium tells the story of seven organisations.
func runConsortium(ctx context.Context, o demo.Options) (err error) {
	o.Scenario, o.Where = scenario.Consortium(o.Scenario.Seed), "the packet path in Go"
	w, err := world.UpConsortium(ctx, o.Scenario, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	o.Network, o.Sites = w, w.Sites
	_, err = demo.TellConsortium(ctx, demo.ConsortiumOptions{Options: o, Lie: w.Lie, Teach: w.Teach})
	return err
}
