package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options say where to look. The zero value is this machine.
type Options struct {
	Root     string // prefix of /proc, /run and /etc; "" is the machine's own
	StateDir string // where the state will lie
	Now      func() time.Time
	PID      int // of the process whose session is the operator's; 0 means this one
}

func (o *Options) defaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.PID == 0 {
		o.PID = os.Getpid()
	}
}

// Look reads the machine. The error is for interfaces that cannot be read,
// without which nothing can be said; the rest goes into View.Unread.
func Look(o Options) (*View, error) {
	o.defaults()
	v := &View{Unread: map[string]string{}, Now: o.Now()}
	if err := v.lookLinks(); err != nil {
		return nil, err
	}
	v.lookRoutes()
	v.lookNftables()
	v.lookFiles(o)
	v.lookSessions(o)
	v.lookDisk(o.StateDir)
	v.Synced = synced()
	return v, nil
}

func (v *View) lookLinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("read the network interfaces: %v", err)
	}
	for _, l := range links {
		a := l.Attrs()
		link := Link{
			Name: a.Name, Index: a.Index,
			Up:       a.RawFlags&unix.IFF_UP != 0,
			Loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			Ethernet: a.EncapType == "ether",
			Raw:      a.EncapType == "none" || a.EncapType == "rawip" || a.EncapType == "ppp",
			Kind:     l.Type(),
			Bridge:   bridgeOf(a.MasterIndex, links),
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("read the addresses of %s: %v", a.Name, err)
		}
		for _, x := range addrs {
			if ip, ok := netip.AddrFromSlice(x.IP); ok {
				ones, _ := x.Mask.Size()
				link.Addrs = append(link.Addrs, netip.PrefixFrom(ip.Unmap(), ones))
			}
		}
		v.Links = append(v.Links, link)
	}
	return nil
}

// bridgeOf names the bridge with an index, "" when it is none.
func bridgeOf(index int, links []netlink.Link) string {
	for _, l := range links {
		if index > 0 && l.Attrs().Index == index && l.Type() == "bridge" {
			return l.Attrs().Name
		}
	}
	return ""
}

func (v *View) lookRoutes() {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		v.Unread["routes"] = err.Error()
		return
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() || r.Dst != nil && !zeroMask(r.Dst.Mask) || r.Type != unix.RTN_UNICAST {
			continue
		}
		v.addRoute(r.LinkIndex, r.Gw)
		for _, hop := range r.MultiPath {
			v.addRoute(hop.LinkIndex, hop.Gw)
		}
	}
}

func zeroMask(m []byte) bool { return bytes.Count(m, []byte{0}) == len(m) }

func (v *View) addRoute(index int, gw []byte) {
	for _, l := range v.Links {
		if l.Index == index && index != 0 && !l.Loopback {
			a, _ := netip.AddrFromSlice(gw)
			v.Routes = append(v.Routes, Route{Interface: l.Name, Gateway: a.Unmap()})
		}
	}
}

const maxFile = 1 << 20

// read returns a small file under the root.
func (o Options) read(path string) ([]byte, error) {
	f, err := os.Open(filepath.Join("/", o.Root, path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func (v *View) lookFiles(o Options) {
	v.Forward4 = o.flag("/proc/sys/net/ipv4/ip_forward")
	v.Forward6 = o.flag("/proc/sys/net/ipv6/conf/all/forwarding")
	if b, err := o.read("/proc/meminfo"); err != nil {
		v.Unread["memory"] = reason(err)
	} else {
		v.Memory = parseAvailable(bytes.NewReader(b))
	}
	v.lookResolvers(o)
	v.Processes = o.processes()
}

func (v *View) lookResolvers(o Options) {
	if b, err := o.read("/etc/resolv.conf"); err != nil {
		v.Unread["resolvers"] = reason(err)
	} else {
		v.Resolvers = parseResolvers(bytes.NewReader(b))
	}
}

func (o Options) flag(path string) bool {
	b, err := o.read(path)
	return err == nil && strings.TrimSpace(string(b)) != "0" && len(b) > 0
}

// reason is an error without the path, which the finding names already.
func reason(err error) string {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// processes lists the running programs that block packets as well.
func (o Options) processes() []string {
	var list []string
	comms, _ := filepath.Glob(filepath.Join("/", o.Root, "/proc/[0-9]*/comm")) // the pattern is constant and well formed
	for _, path := range comms {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		name := strings.TrimSpace(string(b))
		known := strings.HasPrefix(name, "crowdsec") || strings.HasPrefix(name, "fail2ban") || strings.HasPrefix(name, "cs-firewall")
		if known && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func (v *View) lookSessions(o Options) {
	v.SSHPorts = []uint16{22}
	if b, err := o.read("/etc/ssh/sshd_config"); err == nil {
		if ports := parseSSHPorts(bytes.NewReader(b)); len(ports) > 0 {
			v.SSHPorts = ports
		}
	}
	var conns []conn
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(filepath.Join("/", o.Root, path))
		if err != nil {
			continue // no such family
		}
		conns = append(conns, parseTCP(f)...)
		_ = f.Close()
	}
	logins := o.logins()
	// The environment still names a session that has ended.
	if peer, port, ok := o.ownSession(); ok && (len(conns) == 0 || connected(conns, peer)) {
		logins = append(logins, peer)
		if !slices.Contains(v.SSHPorts, port) {
			v.SSHPorts = append(v.SSHPorts, port)
		}
	}
	slices.SortFunc(logins, netip.Addr.Compare)
	v.Management, v.Unproven = sessions(conns, v.SSHPorts, slices.Compact(logins))
}

func connected(conns []conn, peer netip.Addr) bool {
	return slices.ContainsFunc(conns, func(c conn) bool {
		return c.State == tcpEstablished && c.Remote.Addr() == peer
	})
}

// logins are the far ends of the sessions that systemd-logind knows.
func (o Options) logins() []netip.Addr {
	var list []netip.Addr
	files, _ := filepath.Glob(filepath.Join("/", o.Root, "/run/systemd/sessions/*")) // as above
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if a, ok := parseSession(bytes.NewReader(b)); ok {
			list = append(list, a)
		}
	}
	return list
}

// ownSession is the SSH session that this process was started from. sudo
// clears SSH_CONNECTION, so the parents are asked too.
func (o Options) ownSession() (netip.Addr, uint16, bool) {
	pid := o.PID
	for range 32 {
		env, err := o.read(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil {
			for _, kv := range bytes.Split(env, []byte{0}) {
				if s, ok := strings.CutPrefix(string(kv), "SSH_CONNECTION="); ok {
					return parseSSHConnection(s)
				}
			}
		}
		if pid = o.parent(pid); pid <= 1 {
			break
		}
	}
	return netip.Addr{}, 0, false
}

func (o Options) parent(pid int) int {
	b, err := o.read(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if s, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(s))
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// lookDisk looks at the nearest folder above dir that exists.
func (v *View) lookDisk(dir string) {
	if dir == "" {
		v.Unread["disk"] = "no state folder was named"
		return
	}
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			break
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		v.Unread["disk"] = "no folder above it exists"
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		v.Unread["disk"] = err.Error()
		return
	}
	v.Disk = Disk{Dir: dir, Free: st.Bavail * uint64(st.Bsize), Writable: unix.Access(dir, unix.W_OK|unix.X_OK) == nil, Known: true}
}

// synced asks the kernel whether something disciplines its clock.
func synced() Tri {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return Unknown
	case state == unix.TIME_ERROR:
		return No
	}
	return Yes
}
