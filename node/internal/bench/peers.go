//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// layout is one way in which nftables holds a blocklist. In all of them a
// listed source is dropped by the first rule and everything else by the second,
// which stands for nothing but ends the packet and counts it.
type layout struct {
	name   string
	family string // of the table
	set    string // declaration of the set
	hook   string // of the chain; %s is the interface
	suffix string // of each element
}

var (
	// nftBouncer is what blocklist bouncers make: CrowdSec's firewall bouncer
	// sets a timeout on each element and hooks the input chain at -10.
	nftBouncer  = layout{"nft input (bouncer)", "ip", "flags timeout;", "type filter hook input priority -10; policy accept;", " timeout 4h"}
	nftIngress  = layout{"nft ingress", "netdev", "", `type filter hook ingress device "%s" priority 0; policy accept;`, ""}
	nftInterval = layout{"nft interval", "ip", "flags interval; auto-merge;", "type filter hook input priority -10; policy accept;", ""}
)

const nftTable = "hedgerow_bench"

// script is what nft reads to replace the whole set in one transaction.
func (l layout) script(w io.Writer, iface string, addrs []netip.Addr) error {
	b := bufio.NewWriter(w)
	hook := l.hook
	if strings.Contains(hook, "%s") {
		hook = fmt.Sprintf(hook, iface)
	}
	fmt.Fprintf(b, "table %s %s\ndelete table %s %s\n", l.family, nftTable, l.family, nftTable)
	fmt.Fprintf(b, "table %s %s {\n set blocked {\n  type ipv4_addr; %s\n", l.family, nftTable, l.set)
	fmt.Fprint(b, "  elements = {\n")
	for i, a := range addrs {
		if i > 0 {
			b.WriteString(",\n")
		}
		b.WriteString(a.String())
		b.WriteString(l.suffix)
	}
	fmt.Fprintf(b, "\n  }\n }\n chain in {\n  %s\n  ip saddr @blocked counter drop\n  counter drop\n }\n}\n", hook)
	return b.Flush()
}

// install loads a layout into a receiver's namespace with the nft command.
func (l layout) install(dir string, addrs []netip.Addr) func(*receiver) (func() (xdpbench.Verdicts, error), error) {
	return func(r *receiver) (func() (xdpbench.Verdicts, error), error) {
		file := filepath.Join(dir, r.iface+".nft")
		if err := l.write(file, r.iface, addrs); err != nil {
			return nil, err
		}
		defer os.Remove(file)
		if err := command(r.space, nil, "nft", "-f", file); err != nil {
			return nil, err
		}
		return func() (xdpbench.Verdicts, error) { return l.counters(r.space) }, nil
	}
}

func (l layout) write(file, iface string, addrs []netip.Addr) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(l.script(f, iface, addrs), f.Close())
}

// counters are those of the chain's two rules.
func (l layout) counters(s *netspace.Space) (v xdpbench.Verdicts, err error) {
	c, err := nftables.New(nftables.WithNetNSFd(s.FD()))
	if err != nil {
		return v, fmt.Errorf("read nftables counters: %w", err)
	}
	family := nftables.TableFamilyIPv4
	if l.family == "netdev" {
		family = nftables.TableFamilyNetdev
	}
	t := &nftables.Table{Name: nftTable, Family: family}
	rules, err := c.GetRules(t, &nftables.Chain{Name: "in", Table: t})
	if err != nil {
		return v, fmt.Errorf("read nftables counters: %w", err)
	}
	var counts []uint64
	for _, r := range rules {
		for _, e := range r.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				counts = append(counts, n.Packets)
			}
		}
	}
	if len(counts) != 2 {
		return v, fmt.Errorf("read nftables counters: found %d rules that count: expected 2", len(counts))
	}
	return xdpbench.Verdicts{Dropped: counts[0], Passed: counts[1]}, nil
}

// installIpset is a hash:ip set asked in the raw table.
func installIpset(addrs []netip.Addr) func(*receiver) (func() (xdpbench.Verdicts, error), error) {
	return func(r *receiver) (func() (xdpbench.Verdicts, error), error) {
		var b bytes.Buffer
		fmt.Fprintf(&b, "create blocked hash:ip maxelem %d hashsize %d\n", len(addrs)+1, len(addrs))
		for _, a := range addrs {
			fmt.Fprintf(&b, "add blocked %s\n", a)
		}
		if err := command(r.space, &b, "ipset", "restore"); err != nil {
			return nil, err
		}
		for _, rule := range [][]string{{"-m", "set", "--match-set", "blocked", "src", "-j", "DROP"}, {"-j", "DROP"}} {
			if err := command(r.space, nil, "iptables", append([]string{"-t", "raw", "-A", "PREROUTING", "-i", r.iface}, rule...)...); err != nil {
				return nil, err
			}
		}
		return func() (xdpbench.Verdicts, error) { return iptablesCounters(r.space) }, nil
	}
}

func iptablesCounters(s *netspace.Space) (v xdpbench.Verdicts, err error) {
	var out bytes.Buffer
	err = s.Do(func() error {
		c := exec.Command("iptables", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n")
		c.Stdout = &out
		return c.Run()
	})
	if err != nil {
		return v, fmt.Errorf("read iptables counters: %w", err)
	}
	var counts []uint64
	for line := range strings.Lines(out.String()) {
		f := strings.Fields(line)
		if len(f) < 3 || f[2] != "DROP" {
			continue
		}
		n, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			return v, fmt.Errorf("read iptables counters: %w", err)
		}
		counts = append(counts, n)
	}
	if len(counts) != 2 {
		return v, fmt.Errorf("read iptables counters: found %d rules: expected 2", len(counts))
	}
	return xdpbench.Verdicts{Dropped: counts[0], Passed: counts[1]}, nil
}

// installFilter is xdp-filter with a policy for those whom it does not list: allow
// drops the listed, deny drops all others. So either way the packets that are
// measured end there.
func installFilter(policy string, addrs []netip.Addr) func(*receiver) (func() (xdpbench.Verdicts, error), error) {
	return func(r *receiver) (func() (xdpbench.Verdicts, error), error) {
		var f *xdpbench.Filter
		err := r.space.Do(func() error { return unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "") })
		if err != nil {
			return nil, fmt.Errorf("mount a BPF file system: %w", err)
		}
		if err := command(r.space, nil, "xdp-filter", "load", "--mode", "native", "--features", "ipv4", "--policy", policy, r.iface); err != nil {
			return nil, err
		}
		err = r.space.Do(func() (err error) {
			f, err = xdpbench.OpenFilter("/sys/fs/bpf/xdp-filter", addrs)
			return err
		})
		if err != nil {
			return nil, err
		}
		r.closers = append(r.closers, f)
		return f.Verdicts, nil
	}
}

// command runs a command in a namespace and says what it said when it fails.
func command(s *netspace.Space, in io.Reader, name string, args ...string) error {
	return commandUntil(context.Background(), s, in, name, args...)
}

// commandUntil is command for one that is killed when ctx ends.
func commandUntil(ctx context.Context, s *netspace.Space, in io.Reader, name string, args ...string) error {
	return s.Do(func() error {
		c := exec.CommandContext(ctx, name, args...)
		var msg bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = in, &msg, &msg
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w: %.300s", name, err, bytes.TrimSpace(msg.Bytes()))
		}
		return nil
	})
}

// installed says whether a peer's commands are there.
func installed(names ...string) bool {
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			return false
		}
	}
	return true
}
