package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"
)

// State is how good a finding is.
type State string

// States.
const (
	OK   State = "ok"
	Warn State = "warn" // it works, but something is worth knowing
	Fail State = "fail" // hedgerow cannot do its work so
)

// Finding is one thing that was looked at.
type Finding struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"` // what to do; "" when ok
}

// Want is what the configuration asks of the machine.
type Want struct {
	Interface string // "": find it
	Role      string
	Also      []Place // further interfaces
	Enforce   bool
	MaxBytes  int64 // of the state folder
}

// Inspect judges the machine. What the kernel can do is dataplane/xdp's part.
func (v *View) Inspect(w Want) []Finding {
	list := append([]Finding{v.checkInside(w)}, v.checkAlso(w.Also)...)
	list = append(list, v.checkRoute())
	list = append(list, v.checkForwarding(w), v.checkNAT(), v.checkBeside(), v.checkResolvers(), v.checkManagement())
	return append(list, v.checkClock(), v.checkDisk(w), v.checkMemory())
}

func (v *View) checkInside(w Want) Finding {
	const name = "interface"
	in, err := v.FindInside()
	if w.Interface != "" {
		in, err = v.Describe(w.Interface, w.Role)
	}
	if err != nil {
		found, advice := split(err.Error())
		return Finding{name, Fail, found, advice}
	}
	found := fmt.Sprintf("%s (%s): %s", in.Interface, join(in.Prefixes), in.Why)
	if advice := v.misplaced(Place{w.Interface, w.Role}); w.Interface != "" && advice != "" {
		return Finding{name, Warn, found, advice}
	}
	return Finding{name, OK, found, ""}
}

// split parts an error of this package into what was found and the advice,
// which stands after the last colon.
func split(text string) (found, advice string) {
	i := strings.LastIndex(text, ": ")
	if i < 0 {
		return text, ""
	}
	return text[:i], text[i+2:]
}

func (v *View) checkRoute() Finding {
	const name = "default route"
	if why, bad := v.Unread["routes"]; bad {
		return Finding{name, Warn, "could not be read: " + why, "run check as root"}
	}
	if len(v.Routes) == 0 {
		return Finding{name, Warn, "none", "without one, other sites are reached only on attached networks: add it, or ignore this on a sensor"}
	}
	var list []string
	for _, r := range v.Routes {
		s := r.Interface
		if r.Gateway.IsValid() {
			s = fmt.Sprintf("%s by %s", r.Gateway, r.Interface)
		}
		list = append(list, s)
	}
	return Finding{name, OK, strings.Join(list, ", "), ""}
}

func (v *View) checkForwarding(w Want) Finding {
	found := fmt.Sprintf("IPv4 %s, IPv6 %s", onOff(v.Forward4), onOff(v.Forward6))
	in, err := v.FindInside()
	role := w.Role
	if w.Interface == "" && err == nil {
		role = in.Role
	}
	if role == "inside" && !v.Forward4 && !v.Forward6 {
		return Finding{"forwarding", Warn, found, "a gateway forwards: run `sysctl -w net.ipv4.ip_forward=1` (and net.ipv6.conf.all.forwarding=1), or set dataplane.role = \"host\""}
	}
	return Finding{"forwarding", OK, found, ""}
}

func (v *View) checkNAT() Finding {
	if why, bad := v.Unread["nftables"]; bad {
		return Finding{"translation", Warn, "nftables could not be read: " + why, "run check as root to see whether this gateway translates addresses"}
	}
	if len(v.NAT) == 0 {
		return Finding{"translation", OK, "none found", ""}
	}
	return Finding{"translation", OK, strings.Join(v.NAT, ", ") + "; flows are counted at the inside interface, before translation", ""}
}

// checkBeside names other programs that drop packets: one that is blocked by
// two is unblocked only by both.
func (v *View) checkBeside() Finding {
	var who []string
	for _, p := range v.Processes {
		who = append(who, "process "+p)
	}
	for _, t := range v.Tables {
		if l := strings.ToLower(t); strings.Contains(l, "crowdsec") || strings.Contains(l, "f2b") || strings.Contains(l, "fail2ban") {
			who = append(who, "nftables table "+t)
		}
	}
	if len(who) > 0 {
		return Finding{"other blockers", Warn, strings.Join(who, ", "), "they block beside hedgerow: what `hedgerow unblock` lifts may still be blocked there"}
	}
	if len(v.Tables) > 0 {
		return Finding{"other blockers", OK, fmt.Sprintf("%d nftables tables, which see packets after hedgerow", len(v.Tables)), ""}
	}
	return Finding{"other blockers", OK, "none found", ""}
}

func (v *View) checkResolvers() Finding {
	if len(v.Resolvers) == 0 {
		return Finding{"resolvers", Warn, "none in /etc/resolv.conf", "name the resolvers of your hosts in dataplane.never_block"}
	}
	if slices.IndexFunc(v.Resolvers, func(a netip.Addr) bool { return !a.IsLoopback() }) < 0 {
		return Finding{"resolvers", Warn, join(v.Resolvers) + " (a local forwarder)", "name the resolvers that it and your hosts ask in dataplane.never_block"}
	}
	return Finding{"resolvers", OK, join(v.Resolvers) + ", never blocked", ""}
}

func (v *View) checkManagement() Finding {
	if len(v.Unproven) > 0 {
		return Finding{"management", Warn, "SSH connections that are not known to be logged in: " + join(v.Unproven),
			"if one is yours, add it to dataplane.never_block, as in \"" + v.Unproven[0].String() + " tcp/22 any-side\""}
	}
	if len(v.Management) == 0 {
		return Finding{"management", OK, "no SSH session is open", ""}
	}
	return Finding{"management", OK, "SSH from " + join(v.Management) + ", never blocked", ""}
}

// built is a time before which no clock that runs this code can be right.
var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (v *View) checkClock() Finding {
	found := v.Now.UTC().Format(time.RFC3339)
	if v.Now.Before(built) || v.Now.After(built.AddDate(30, 0, 0)) {
		return Finding{"clock", Fail, found, "set the clock: blocks expire by it, and other sites refuse what is dated wrongly"}
	}
	if v.Synced == No {
		return Finding{"clock", Warn, found + ", not synchronised", "start chrony or systemd-timesyncd: other sites compare times with this one"}
	}
	return Finding{"clock", OK, found, ""}
}

func (v *View) checkDisk(w Want) Finding {
	d := v.Disk
	if !d.Known {
		return Finding{"disk", Warn, "the state folder's disk could not be looked at: " + v.Unread["disk"], "check site.state_dir"}
	}
	found := fmt.Sprintf("%s free at %s", size(d.Free), d.Dir)
	switch {
	case !d.Writable:
		return Finding{"disk", Fail, d.Dir + " is not writable", "run as a user who may write there, or choose another site.state_dir"}
	case d.Free < 128<<20:
		return Finding{"disk", Fail, found, "make at least 128 MiB free, or choose another site.state_dir"}
	case w.MaxBytes > 0 && d.Free < uint64(w.MaxBytes):
		return Finding{"disk", Warn, found, fmt.Sprintf("store.max_bytes is %s: lower it or make room", size(uint64(w.MaxBytes)))}
	}
	return Finding{"disk", OK, found, ""}
}

func (v *View) checkMemory() Finding {
	if v.Memory == 0 {
		return Finding{"memory", Warn, "could not be read: " + v.Unread["memory"], "hedgerow wants 256 MiB"}
	}
	found := size(v.Memory) + " available"
	switch {
	case v.Memory < 96<<20:
		return Finding{"memory", Fail, found, "hedgerow wants 256 MiB: lower dataplane.max_flows and free some memory"}
	case v.Memory < 256<<20:
		return Finding{"memory", Warn, found, "hedgerow wants 256 MiB: lower dataplane.max_flows"}
	}
	return Finding{"memory", OK, found, ""}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func size(n uint64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

func join[T fmt.Stringer](list []T) string {
	words := make([]string, 0, len(list))
	for _, x := range list {
		words = append(words, x.String())
	}
	sort.Strings(words)
	if len(words) == 0 {
		return "no address"
	}
	return strings.Join(words, ", ")
}
