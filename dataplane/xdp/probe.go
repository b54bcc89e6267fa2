package xdp

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Level says how a finding bears on the plane.
type Level uint8

// Levels.
const (
	Fine    Level = iota
	Limited       // works, with less
	Fatal         // Open would fail
)

// String is "ok", "limited" or "missing".
func (l Level) String() string {
	switch l {
	case Limited:
		return "limited"
	case Fatal:
		return "missing"
	}
	return "ok"
}

// Finding is one thing that was looked at.
type Finding struct {
	Name   string // what was looked at
	Level  Level
	Detail string // what was found
	Advice string // what to do; empty when fine
}

// Report is what a machine can do on one interface.
type Report struct {
	Interface string
	Findings  []Finding
}

// OK says that nothing fatal was found.
func (r Report) OK() bool {
	for _, f := range r.Findings {
		if f.Level == Fatal {
			return false
		}
	}
	return true
}

func (r *Report) add(name string, level Level, detail, advice string) {
	r.Findings = append(r.Findings, Finding{name, level, detail, advice})
}

// DefaultBPFFS is where distributions mount the BPF file system.
const DefaultBPFFS = "/sys/fs/bpf"

// Probe looks at what this machine can do on an interface, for a plane that pins
// under pinDir ("" pins nothing). It changes nothing; without privileges it says
// what it could not see.
func Probe(iface, pinDir string) Report {
	r := Report{Interface: iface}
	privileged := r.privileges()
	r.fileSystem(pinDir)
	r.kernel(privileged)
	ifi, err := findInterface(iface)
	if err != nil {
		r.add("interface", Fatal, err.Error(), "name an interface of this machine")
		return r
	}
	r.link(ifi)
	r.egress(ifi, privileged)
	return r
}

func (r *Report) privileges() bool {
	missing, err := missingCaps()
	if err != nil {
		r.add("privileges", Fatal, err.Error(), "run as root")
		return false
	}
	if len(missing) > 0 {
		r.add("privileges", Fatal, fmt.Sprintf("user %d lacks %s", os.Geteuid(), strings.Join(missing, ", ")),
			"run as root, or give the service these capabilities (AmbientCapabilities= in its unit)")
		return false
	}
	r.add("privileges", Fine, "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are there", "")
	return true
}

func (r *Report) fileSystem(pinDir string) {
	_, err := findPins(pinDir)
	switch {
	case pinDir == "":
		r.add("bpffs", Limited, "nothing is pinned: enforcement ends with the daemon", "")
	case err != nil:
		r.add("bpffs", Fatal, err.Error(), "mount -t bpf bpf "+DefaultBPFFS+`, or set dataplane.pin_dir to "" to pin nothing`)
	default:
		r.add("bpffs", Fine, pinDir+" lies in one", "")
	}
}

func (r *Report) kernel(privileged bool) {
	if data, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable"); err == nil && strings.TrimSpace(string(data)) == "0" {
		r.add("jit", Limited, "the BPF compiler is switched off: programs are interpreted", "sysctl net.core.bpf_jit_enable=1")
	}
	if !privileged {
		r.add("kernel", Limited, "features can only be seen with privileges", "run this check as root")
		return
	}
	r.feature("xdp", features.HaveProgramType(ebpf.XDP))
	r.feature("ring buffer", features.HaveMapType(ebpf.RingBuf))
	r.feature("lpm trie", features.HaveMapType(ebpf.LPMTrie))
}

func (r *Report) feature(name string, err error) {
	switch {
	case err == nil:
		r.add(name, Fine, "supported by the kernel", "")
	case errors.Is(err, ebpf.ErrNotSupported):
		r.add(name, Fatal, "not supported by the kernel", "use Linux 6.1 or later")
	default:
		r.add(name, Limited, fmt.Sprintf("could not be tested: %v", err), "run this check as root")
	}
}

func (r *Report) link(ifi *net.Interface) {
	_, err := rawLink(ifi)
	if err != nil {
		r.add("interface", Fatal, err.Error(), "choose an Ethernet interface, or one that carries bare IP")
		return
	}
	now, err := inspect(ifi)
	if err != nil {
		r.add("interface", Fatal, err.Error(), "run this check as root")
		return
	}
	if ifi.Flags&net.FlagUp == 0 {
		r.add("interface", Limited, "is down", "ip link set dev "+ifi.Name+" up")
	} else {
		r.add("interface", Fine, fmt.Sprintf("up, MTU %d", ifi.MTU), "")
	}
	switch {
	case now.prog == 0:
		r.add("other xdp program", Fine, "none", "")
	case progName(now.prog) == kernelProgHedgerowXdp:
		r.add("other xdp program", Fine, fmt.Sprintf("this product's own (id %d)", now.prog), "")
	default:
		found, advice := foreign(now.prog, ifi.Name)
		r.add("other xdp program", Fatal, found, advice)
	}
	r.driver(ifi)
}

// driver asks the kernel whether the driver has native XDP.
func (r *Report) driver(ifi *net.Interface) {
	name := driverName(ifi.Name)
	native, err := nativeXDP(ifi.Index)
	switch {
	case err != nil:
		r.add("native xdp", Limited, fmt.Sprintf("driver %s: this kernel does not tell (%v); it is tried first", name, err), "")
	case native:
		r.add("native xdp", Fine, "driver "+name+" has it", "")
	default:
		r.add("native xdp", Limited, "driver "+name+" does not have it: generic mode, about three times the cost a packet",
			"nothing needs to be done; use a network card with native XDP for line rate")
	}
}

func driverName(iface string) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "unknown"
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, iface)
	if err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// The netdev family of generic netlink (Documentation/netlink/specs/netdev.yaml).
const (
	netdevFamily      = "netdev"
	netdevCmdDevGet   = 1
	netdevAttrIfindex = 1
	netdevAttrXDP     = 3
	netdevXDPBasic    = 1
)

// genlHeader is struct genlmsghdr. The library's own leaves the reserved bytes
// to chance, and this family refuses other than zeros.
type genlHeader struct{ command, version uint8 }

func (h genlHeader) Len() int          { return nl.SizeofGenlmsg }
func (h genlHeader) Serialize() []byte { return []byte{h.command, h.version, 0, 0} }

// nativeXDP reads the XDP features of a device (Linux 6.3 and later).
func nativeXDP(index int) (bool, error) {
	fam, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return false, err
	}
	req := nl.NewNetlinkRequest(int(fam.ID), 0)
	req.AddData(genlHeader{netdevCmdDevGet, uint8(fam.Version)})
	req.AddData(nl.NewRtAttr(netdevAttrIfindex, nl.Uint32Attr(uint32(index))))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return false, err
	}
	for _, m := range msgs {
		if len(m) < nl.SizeofGenlmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return false, err
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevAttrXDP && len(a.Value) >= 8 {
				return nl.NativeEndian().Uint64(a.Value)&netdevXDPBasic != 0, nil
			}
		}
	}
	return false, errors.New("no XDP features in the answer")
}

func (r *Report) egress(ifi *net.Interface, privileged bool) {
	if !privileged {
		return
	}
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifi.Index, Attach: ebpf.AttachTCXEgress})
	switch {
	case errors.Is(err, link.ErrNotSupported), errors.Is(err, unix.EINVAL):
		r.add("tcx", Limited, "the kernel has no TCX egress hook: a clsact filter is used, which does the same but can be removed by others",
			"nothing needs to be done; Linux 6.6 or later has TCX")
	case err != nil:
		r.add("tcx", Limited, fmt.Sprintf("could not be tested: %v", err), "run this check as root")
	case len(res.Programs) > 0:
		r.add("tcx", Fine, fmt.Sprintf("supported; %d programs on egress already, ours goes first", len(res.Programs)), "")
	default:
		r.add("tcx", Fine, "supported", "")
	}
}
