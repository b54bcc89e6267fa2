//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// Names of a gateway's interfaces, as its daemon sees them.
const (
	InterfaceLAN = "lan0"
	InterfaceWAN = "wan0"
)

// Gateway is a site's router: a namespace that forwards between its hosts and
// the outside, with a folder, a private bpffs, and the processes started in it.
type Gateway struct {
	Site  *scenario.Site
	Dir   string // 0700, for state, configuration and socket
	BPF   string // a bpffs that only processes started here can see
	space *netspace.Space

	mu    sync.Mutex
	procs []*Process
}

func newGateway(l *Lab, site *scenario.Site) (*Gateway, error) {
	gw := &Gateway{Site: site, Dir: filepath.Join(l.dir, site.Name)}
	gw.BPF = filepath.Join(gw.Dir, "bpf")
	if err := os.MkdirAll(gw.BPF, 0o700); err != nil {
		return nil, err
	}
	var err error
	if gw.space, err = netspace.New(site.Name); err != nil {
		return nil, err
	}
	return gw, nil
}

// setUp gives the plugged interfaces their addresses and starts to forward.
func (gw *Gateway) setUp(sc *scenario.Scenario) error {
	if err := quiet(gw.space); err != nil {
		return err
	}
	err := gw.space.Do(func() error {
		if err := unix.Mount("bpf", gw.BPF, "bpf", 0, "mode=0700"); err != nil {
			return fmt.Errorf("mount bpffs: %w", err)
		}
		if _, err := setAddr(InterfaceLAN, netip.PrefixFrom(gw.Site.Gateway, gw.Site.LAN.Bits())); err != nil {
			return err
		}
		wan, err := setAddr(InterfaceWAN, netip.PrefixFrom(gw.Site.WAN, sc.WANNet.Bits()))
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("loopback: %w", err)
		}
		if err := netspace.AddRoute(wan, netip.PrefixFrom(netip.IPv4Unspecified(), 0), sc.WANRouter); err != nil {
			return err
		}
		if gw.Site.NAT {
			return translate(gw.Site)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return gw.space.Sysctl("net/ipv4/ip_forward", "1")
}

func setAddr(name string, p netip.Prefix) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	if err := netspace.AddAddr(link, p); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return link, nil
}

// translate masquerades what leaves by the WAN and forwards the site's public
// ports to its server.
func translate(site *scenario.Site) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "gateway"})
	out := c.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: append(onInterface(expr.MetaKeyOIFNAME), &expr.Masq{})})
	in := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	for _, port := range site.Forwarded() {
		c.AddRule(&nftables.Rule{Table: table, Chain: in, Exprs: append(onInterface(expr.MetaKeyIIFNAME), forward(port, site.Server.Addr)...)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// onInterface matches packets that come or go by the WAN.
func onInterface(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, InterfaceWAN)
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

// forward matches TCP to a port and sends it to a host.
func forward(port uint16, to netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Immediate{Register: 1, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}

// Do runs f on the gateway's thread, within its network and mounts.
func (gw *Gateway) Do(f func() error) error { return gw.space.Do(f) }

// Process is a child in a gateway's namespaces.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs a program in the gateway's network and mounts. It gets its own
// process group, so that a Ctrl-C at the terminal reaches the demo first, and
// dies with the demo whatever happens.
func (gw *Gateway) Start(path string, args []string, env []string, out io.Writer) (*Process, error) {
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = gw.Dir, env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second
	if err := gw.space.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("gateway %s: start: %w", gw.Site.Name, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	gw.mu.Lock()
	defer gw.mu.Unlock()
	gw.procs = append(gw.procs, p)
	return p, nil
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended; Err is valid then.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended.
func (p *Process) Err() error { return p.err }

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// stopGrace is how long a daemon may take to end by itself.
const stopGrace = 5 * time.Second

// Stop asks the process to end, and kills it when it does not.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop process %d: %w", p.Pid(), err)
	}
	t := time.NewTimer(stopGrace)
	defer t.Stop()
	select {
	case <-p.done:
		return nil
	case <-t.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("process %d did not end within %v and was killed", p.Pid(), stopGrace)
}

func (gw *Gateway) stop() error {
	gw.mu.Lock()
	procs := gw.procs
	gw.procs = nil
	gw.mu.Unlock()
	var errs []error
	for _, p := range procs {
		if err := p.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("gateway %s: %w", gw.Site.Name, err))
		}
	}
	return errors.Join(errs...)
}
