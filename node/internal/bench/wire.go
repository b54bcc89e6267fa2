//go:build linux

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp/xdpbench"
	"github.com/hedgerow-mesh/hedgerow/node/internal/netspace"
)

// Each receiver is alone in its namespace, so all have the same addresses and
// take the same frames.
var (
	sendMAC   = net.HardwareAddr{2, 0, 0, 0, 99, 1}
	recvMAC   = net.HardwareAddr{2, 0, 0, 0, 99, 2}
	recvAddr  = netip.MustParseAddrPort("10.99.0.2:9000")
	recvCIDR  = "10.99.0.2/24"
	sendCPU   = 0
	handleCPU = 1
)

// wire is one sender and its receivers.
type wire struct {
	sender *netspace.Space
	stream *xdpbench.Stream
}

func newWire(sources int) (*wire, error) {
	if runtime.NumCPU() < 2 {
		return nil, errors.New("needs two processors: one sends, one handles")
	}
	s, err := netspace.New("sender")
	if err != nil {
		return nil, err
	}
	w := &wire{sender: s}
	w.stream, err = xdpbench.NewStream(xdpbench.Ends{From: sendMAC, To: recvMAC, Dst: recvAddr}, sources)
	if err != nil {
		s.Close()
		return nil, err
	}
	return w, nil
}

func (w *wire) close() error {
	w.sender.Close()
	return w.stream.Close()
}

// receiver is one end of a pair whose packets one thread handles.
type receiver struct {
	name    string
	space   *netspace.Space
	iface   string
	index   int
	thread  int // id of the NAPI thread
	sender  *wire
	gen     *xdpbench.Generator
	closers []interface{ Close() error }
	gaps    uint64                // packets that a peer let through while it was loaded anew
	serves  func(c wireCase) bool // nil: every case
	drops   bool                  // everything, also what is not listed
	// verdicts are of all packets handled so far.
	verdicts func() (xdpbench.Verdicts, error)
}

var named atomic.Int64

// freshName is an interface's name that no other has, of this process or of
// another that measures: the kernel's thread for it is found by that name, and
// the thread of an interface that is gone outlives it for a moment.
func freshName() string {
	return "hb" + strconv.FormatInt(int64(os.Getpid()), 36) + "x" + strconv.FormatInt(named.Add(1), 36)
}

// receive adds a receiver. install puts what is to be measured in place, in the
// receiver's namespace, and returns how its verdicts are read.
func (w *wire) receive(name string, install func(r *receiver) (func() (xdpbench.Verdicts, error), error)) (*receiver, error) {
	r := &receiver{name: name, sender: w, iface: freshName()}
	var err error
	if r.space, err = netspace.New(name); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := r.plug(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), r.close())
	}
	if r.verdicts, err = install(r); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), r.close())
	}
	if err := r.thread1(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), r.close())
	}
	return r, nil
}

func (r *receiver) close() error {
	var errs []error
	if r.gen != nil {
		errs = append(errs, r.gen.Close())
	}
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.space.Close()
	return errors.Join(errs...)
}

// plug makes the pair. Both ends have GRO on, which is what makes the kernel
// use NAPI, and takes frames of programs, also without XDP.
func (r *receiver) plug() error {
	for _, s := range []string{"all", "default"} {
		// Sources come from everywhere; and nothing but frames may travel here.
		err := errors.Join(r.space.Sysctl("net/ipv4/conf/"+s+"/rp_filter", "0"), quiet(r.space, s), quiet(r.sender.sender, s))
		if err != nil {
			return err
		}
	}
	gen := "g" + r.iface
	err := r.sender.sender.Do(func() error {
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: gen, HardwareAddr: sendMAC, NumTxQueues: 1, NumRxQueues: 1},
			PeerName:  r.iface, PeerHardwareAddr: recvMAC, PeerNamespace: netlink.NsFd(r.space.FD()),
		})
		if err != nil {
			return fmt.Errorf("make pair: %w", err)
		}
		l, err := up(gen)
		if err != nil {
			return err
		}
		r.gen, err = xdpbench.NewGenerator(r.sender.stream, l.Attrs().Index)
		return err
	})
	if err != nil {
		return err
	}
	return r.space.Do(func() error {
		l, err := up(r.iface)
		if err != nil {
			return err
		}
		r.index = l.Attrs().Index
		a, err := netlink.ParseAddr(recvCIDR)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, a)
	})
}

// quiet keeps IPv6 from announcing itself.
func quiet(s *netspace.Space, conf string) error {
	err := s.Sysctl("net/ipv6/conf/"+conf+"/disable_ipv6", "1")
	if errors.Is(err, os.ErrNotExist) {
		return nil // this kernel has no IPv6
	}
	return err
}

func up(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("bring %s up: %w", name, err)
	}
	// After that: it is the change on a link that is up which tells the other
	// end that it may send frames of programs.
	if err := gro(name); err != nil {
		return nil, fmt.Errorf("switch GRO on at %s: %w", name, err)
	}
	return l, nil
}

// gro switches generic receive offload on (ETHTOOL_SGRO).
func gro(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_SGRO, 1}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return errno
	}
	return nil
}

// thread1 has one thread handle the receiver's packets, and ties it to its processor.
func (r *receiver) thread1() error {
	err := r.space.Do(func() error {
		return os.WriteFile(filepath.Join("/sys/class/net", r.iface, "threaded"), []byte("1"), 0o644)
	})
	if err != nil {
		return fmt.Errorf("give NAPI a thread: %w", err)
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil || !strings.HasPrefix(string(b), "napi/"+r.iface+"-") {
			continue // a process that ended meanwhile, or another's thread
		}
		if r.thread, err = strconv.Atoi(filepath.Base(filepath.Dir(n))); err != nil {
			return err
		}
		return tie(r.thread, handleCPU)
	}
	return errors.New("found no NAPI thread: /proc of this machine does not show threads of the kernel")
}

func tie(thread, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(thread, &set); err != nil {
		return fmt.Errorf("tie thread to processor %d: %w", cpu, err)
	}
	return nil
}

// cpuTime is how long a thread has run, by the kernel's scheduler.
func cpuTime(thread int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", thread))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return 0, errors.New("schedstat is empty: the kernel was built without it")
	}
	ns, err := strconv.ParseInt(f[0], 10, 64)
	return time.Duration(ns), err
}

// handle sends n packets and returns the handling processor's time for each
// that the receiver took, and what it said of them.
func (r *receiver) handle(n int) (ns float64, v xdpbench.Verdicts, err error) {
	was, err := r.verdicts()
	if err != nil {
		return 0, v, err
	}
	before, err := cpuTime(r.thread)
	if err != nil {
		return 0, v, err
	}
	err = r.sender.sender.Do(func() error {
		if err := tie(0, sendCPU); err != nil {
			return err
		}
		return r.gen.Send(n)
	})
	if err != nil {
		return 0, v, err
	}
	now, err := r.settle(was)
	if err != nil {
		return 0, v, err
	}
	after, err := cpuTime(r.thread)
	if err != nil {
		return 0, v, err
	}
	v = now.Less(was)
	if v.All() == 0 {
		return 0, v, fmt.Errorf("%s: of %d packets none arrived", r.name, n)
	}
	return float64(after-before) / float64(v.All()), v, nil
}

// patience is how long the first packet may take: on a busy machine the
// receiver's thread has to wait for its turn.
const patience = 5 * time.Second

// settle waits until the receiver has handled what was sent since was.
func (r *receiver) settle(was xdpbench.Verdicts) (xdpbench.Verdicts, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	last, err := r.verdicts()
	for same := 0; err == nil && same < 5; {
		<-tick.C
		var now xdpbench.Verdicts
		now, err = r.verdicts()
		same++
		if now != last || now == was && time.Since(began) < patience {
			last, same = now, 0
		}
	}
	return last, err
}
