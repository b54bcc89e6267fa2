package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/machine"
)

func startCommands() []*cobra.Command {
	return []*cobra.Command{demoCommand(), checkCommand(), initCommand(), upCommand(), idCommand(), detachCommand()}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails on the platforms that Go supports
	return b
}

func beUint64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func initCommand() *cobra.Command {
	var path string
	var force bool
	c := &cobra.Command{
		Use: "init", Short: "Write a minimal commented configuration for this machine", GroupID: "start",
		Example: "  hedgerow init\n  hedgerow init --config ./hedgerow.toml",
		Args:    noArgs,
	}
	c.Flags().StringVarP(&path, "config", "c", defaultConfig, "where to write it")
	c.Flags().BoolVar(&force, "force", false, "replace a file that is there")
	c.RunE = func(c *cobra.Command, _ []string) error {
		var f config.Found
		if v, err := machine.Look(machine.Options{}); err == nil {
			if in, err := v.FindInside(); err == nil {
				f.Interface, f.Role, f.Why = in.Interface, in.Role, in.Why
				for _, p := range in.Prefixes {
					f.Inside = append(f.Inside, p.String())
				}
			}
		}
		f.Site = hostName()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
		if force {
			flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		}
		w, err := os.OpenFile(path, flags, 0o640)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s is there already: edit it, or --force replaces it", path)
		}
		if err != nil {
			return err
		}
		if err := errors.Join(config.Minimal(w, f), w.Close()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s\nnext: hedgerow check --config %s, then hedgerow up --config %s\n", path, path, path)
		return err
	}
	return c
}

func checkCommand() *cobra.Command {
	var path, iface string
	c := &cobra.Command{
		Use: "check", Short: "Validate the configuration and this machine, and say what to do where something is missing", GroupID: "start",
		Example: "  hedgerow check\n  hedgerow check --config ./hedgerow.toml",
		Args:    noArgs,
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	c.Flags().StringVar(&iface, "interface", "", "the only interface, instead of those of the configuration")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(path)
		if err != nil {
			return err
		}
		if iface != "" {
			cfg.Dataplane.Interface, cfg.Dataplane.Attach = iface, nil
		}
		v, err := machine.Look(machine.Options{StateDir: cfg.Site.StateDir})
		if err != nil {
			return err
		}
		fs := v.Inspect(want(cfg))
		if ins, err := v.Places(places(cfg.Dataplane.Placement())); err == nil {
			for i, in := range ins {
				fs = append(fs, kernelFindings(in.Interface, cfg.Dataplane.PinDir, len(ins) > 1, i > 0)...)
			}
		}
		return printFindings(c.OutOrStdout(), fs)
	}
	return c
}

// kernelFindings is what the kernel can do for an interface. named says to name it
// with what is its own, another to leave out what an earlier one has said of the
// machine.
func kernelFindings(iface, pinDir string, named, another bool) []machine.Finding {
	ofMachine := []string{"privileges", "bpffs", "xdp", "ring buffer", "lpm trie"}
	states := map[xdp.Level]machine.State{xdp.Fine: machine.OK, xdp.Limited: machine.Warn, xdp.Fatal: machine.Fail}
	var out []machine.Finding
	for _, f := range xdp.Probe(iface, pinDir).Findings {
		name := f.Name
		switch shared := slices.Contains(ofMachine, name); {
		case shared && another:
			continue
		case named && !shared:
			name = iface + ": " + name
		}
		out = append(out, machine.Finding{Name: name, State: states[f.Level], Found: f.Detail, Advice: f.Advice})
	}
	return out
}

func printFindings(w io.Writer, fs []machine.Finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	bad := 0
	for _, f := range fs {
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", f.State, f.Name, f.Found)
		if f.Advice != "" {
			_, _ = fmt.Fprintf(t, "\t\t-> %s\n", f.Advice)
		}
		if f.State == machine.Fail {
			bad++
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d checks failed: do what stands behind the arrows, then check again", bad, len(fs))
	}
	_, err := fmt.Fprintln(w, "ready: hedgerow up")
	return err
}

func idCommand() *cobra.Command {
	var path, state string
	var asJSON bool
	c := &cobra.Command{
		Use: "id", Short: "Print this site's identity, for the [[mesh.peer]] of others (made at first use)", GroupID: "start",
		Example: "  hedgerow id\n  hedgerow id --state ./state --json",
		Args:    noArgs,
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	c.Flags().StringVar(&state, "state", "", "state folder, instead of site.state_dir")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(path)
		if err != nil {
			return err
		}
		if state != "" {
			cfg.Site.StateDir = state
		}
		if err := os.MkdirAll(cfg.Site.StateDir, 0o700); err != nil {
			return err
		}
		k, err := siteKey(cfg)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(c.OutOrStdout(), map[string]string{"site": cfg.Site.Name, "id": string(k.ID())})
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), k.ID())
		return err
	}
	return c
}

func detachCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "detach", Short: "End enforcement in the kernel: unpin and remove the programs (stop the daemon first)", GroupID: "start",
		Long:    "Blocks outlive the daemon on purpose: its programs and tables stay pinned in the\nkernel. This command takes them out.",
		Example: "  hedgerow detach\n  hedgerow detach --config ./hedgerow.toml",
		Args:    noArgs,
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration (default: "+defaultConfig+" where it exists)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(path)
		if err != nil {
			return err
		}
		if strings.TrimSpace(cfg.Dataplane.PinDir) == "" {
			return errors.New("dataplane.pin_dir is empty: nothing was pinned")
		}
		if err := xdp.DetachPinned(cfg.Dataplane.PinDir); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "detached what was pinned under %s\n", cfg.Dataplane.PinDir)
		return err
	}
	return c
}
