package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/xdp"
	"github.com/hedgerow-mesh/hedgerow/node"
	"github.com/hedgerow-mesh/hedgerow/node/internal/config"
	"github.com/hedgerow-mesh/hedgerow/node/internal/machine"
	"github.com/hedgerow-mesh/hedgerow/node/internal/telemetry"
)

// placed is where the plane goes, and what may never be blocked there.
type placed struct {
	Attach   []xdp.Attach
	Role     string // of the first that is not outside
	Why      string
	Never    []dataplane.Never
	Own      []netip.Addr
	Inside   []netip.Prefix // the protected networks
	Warnings []string
}

// names are the interfaces with their roles, for people.
func (p placed) names() string {
	if len(p.Attach) == 1 {
		return p.Attach[0].Interface
	}
	var list []string
	for _, a := range p.Attach {
		list = append(list, fmt.Sprintf("%s (%s)", a.Interface, a.Role))
	}
	return strings.Join(list, ", ")
}

func placement(cfg *config.Config) (placed, error) {
	switch cfg.Dataplane.Plane {
	case config.PlaneAuto, config.PlaneXDP:
	default:
		return placed{}, fmt.Errorf("dataplane.plane: %q sees no packets of this machine: expected auto or xdp (`hedgerow replay` reads captures)", cfg.Dataplane.Plane)
	}
	v, err := machine.Look(machine.Options{StateDir: cfg.Site.StateDir})
	if err != nil {
		return placed{}, err
	}
	ins, err := v.Places(places(cfg.Dataplane.Placement()))
	if err != nil {
		return placed{}, err
	}
	p := placed{Own: v.Own()}
	for _, in := range ins {
		role, err := xdp.ParseRole(in.Role)
		if err != nil {
			return placed{}, err
		}
		p.Attach = append(p.Attach, xdp.Attach{Interface: in.Interface, Role: role})
		switch {
		case role == xdp.Outside:
			continue
		case p.Role == "":
			p.Role, p.Why = in.Role, in.Why
		}
		p.Inside = append(p.Inside, in.Prefixes...)
	}
	p.Never = v.NeverBlock(p.Role)
	if len(cfg.Dataplane.Inside) > 0 {
		p.Inside = cfg.Dataplane.Inside
	} else if p.Role == config.RoleSensor {
		p.Inside = privateNetworks()
	}
	for _, f := range v.Inspect(want(cfg)) {
		if f.State != machine.OK {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s: %s: %s", f.Name, f.Found, f.Advice))
		}
	}
	return p, nil
}

func places(list []config.Attach) []machine.Place {
	var out []machine.Place
	for _, a := range list {
		out = append(out, machine.Place{Interface: a.Interface, Role: a.Role})
	}
	return out
}

// want is what the configuration asks of the machine.
func want(cfg *config.Config) machine.Want {
	w := machine.Want{
		Role: cfg.Dataplane.Role, Enforce: cfg.Dataplane.Mode == dataplane.Enforce, MaxBytes: cfg.Store.MaxBytes,
	}
	w.Interface, w.Also = cfg.Dataplane.Interface, places(cfg.Dataplane.Attach)
	if i := slices.IndexFunc(w.Also, func(p machine.Place) bool { return p.Role != config.RoleOutside }); w.Interface == "" && i >= 0 {
		w.Interface, w.Role = w.Also[i].Interface, w.Also[i].Role
		w.Also = slices.Delete(w.Also, i, i+1)
	}
	return w
}

// privateNetworks are the protected ones where nothing else is known: a sensor's
// port has no address.
func privateNetworks() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// loadPlane brings the kernel path in without hooking it.
func loadPlane(cfg *config.Config, p placed, log *slog.Logger) (*xdp.Plane, error) {
	o := xdp.Options{
		Interface: p.Attach[0].Interface, Role: p.Attach[0].Role, Also: p.Attach[1:], Networks: p.Inside,
		PinDir: cfg.Dataplane.PinDir, Mode: cfg.Dataplane.Mode, MaxFlows: cfg.Dataplane.MaxFlows,
		KeepGRO:   cfg.Dataplane.KeepGRO,
		DeadAfter: cfg.Dataplane.DeadAfter, Bulk: node.BulkLimits(cfg.Feeds.MaxEntries), Log: log.With(telemetry.KeyComponent, "xdp"),
	}
	if cfg.Dataplane.Fail == config.FailClosed {
		o.Fail = xdp.FailClosed
	}
	return xdp.Load(o)
}

// hooked says in words how a plane is attached.
func hooked(p dataplane.Plane) (string, error) {
	s, err := p.Stats()
	if err != nil {
		return "", err
	}
	egress := make([]string, 0, 1)
	var quiet []string
	for _, a := range s.Attached {
		if a.GROOff {
			quiet = append(quiet, a.Interface)
		}
		if a.Egress != "" && (len(egress) == 0 || egress[0] != a.Egress) {
			egress = append(egress, a.Egress)
		}
	}
	words := strings.Join(append([]string{s.AttachMode + " XDP"}, egress...), " and ")
	if len(quiet) > 0 {
		words += ", GRO off on " + strings.Join(quiet, ", ")
	}
	return words, nil
}

// away says what happens while no daemon is there.
func away(cfg *config.Config) string {
	switch {
	case cfg.Dataplane.PinDir == "":
		return "enforcement ends with the daemon (dataplane.pin_dir is empty)"
	case cfg.Dataplane.Fail == config.FailClosed:
		return fmt.Sprintf("blocks stay until they expire; fails closed: in enforce mode new flows from outside are dropped after %s", cfg.Dataplane.DeadAfter)
	}
	return "blocks stay until they expire; fails open: what is not blocked goes on"
}
