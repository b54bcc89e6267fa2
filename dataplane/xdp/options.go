package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// Role says what an interface stands before, and with that which packets at
// its hooks come from inside.
type Role uint8

// Roles.
const (
	// Inside: the protected hosts are behind the interface. What enters it comes
	// from inside, what leaves it goes there.
	Inside Role = iota
	// Host: the interface is this machine's own, which is what is protected.
	Host
	// Outside: the world is behind the interface. What enters it meets the rules
	// before anything else of the machine sees it, and is not accounted: flows of
	// hosts are, at the inside interface, with the hosts' own addresses. Only
	// what the gateway itself sends is accounted here, and the answers to it.
	Outside
	// Bridge: a port of a bridge with the protected hosts behind it. The hooks
	// are those of Inside.
	Bridge
	// Sensor: a port that is sent copies of others' packets (SPAN, tap). Both
	// directions enter it, and Options.Networks tell them apart. It never drops.
	Sensor

	roles
)

var roleNames = [roles]string{"inside", "host", "outside", "bridge", "sensor"}

// String is the role's word: inside, host, outside, bridge, sensor.
func (r Role) String() string {
	if r >= roles {
		return fmt.Sprintf("role %d", uint8(r))
	}
	return roleNames[r]
}

// ParseRole reads what String prints.
func ParseRole(s string) (Role, error) {
	for r, name := range roleNames {
		if s == name {
			return Role(r), nil
		}
	}
	return 0, fmt.Errorf("role %q: expected one of %s", s, strings.Join(roleNames[:], ", "))
}

// hooks are the directions that packets at XDP and at egress travel. Those of a
// sensor are told packet by packet.
func (r Role) hooks() (xdp, egress dataplane.Hook) {
	if r == Host || r == Outside {
		return dataplane.ToInside, dataplane.FromInside
	}
	return dataplane.FromInside, dataplane.ToInside
}

// program is the role that the programs are made for: a bridge's port has those
// of an inside interface.
func (r Role) program() Role {
	if r == Bridge {
		return Inside
	}
	return r
}

// Attach is one interface and its role.
type Attach struct {
	Interface string
	Role      Role
}

// Fail says what happens when no daemon has been there for Options.DeadAfter.
// Rules stay until they expire in either case.
type Fail uint8

// Ways to fail.
const (
	// Open: packets that no rule drops go on.
	FailOpen Fail = iota
	// Closed: in enforce mode, flows that are new and come towards inside are
	// dropped; never-block entries, flows that are known, and whatever inside
	// hosts begin go on.
	FailClosed
)

// String is "open" or "closed".
func (f Fail) String() string {
	if f == FailClosed {
		return "closed"
	}
	return "open"
}

// Idle is how long a flow may be silent before it counts as ended. Zero fields
// take the defaults.
type Idle struct {
	Unanswered time.Duration // TCP with packets of one side only; default 5 s
	TCP        time.Duration // default 60 s
	Other      time.Duration // default 15 s
}

// Options say where and how a plane works. Only Interface is required.
type Options struct {
	Interface string
	Role      Role
	Also      []Attach // further interfaces; all share one set of tables
	// Networks are the protected ones, by which a Sensor tells directions.
	Networks []netip.Prefix
	// PinDir is a folder in a BPF file system under which links and maps are
	// pinned. Empty: nothing is pinned and enforcement ends with the process.
	PinDir     string
	Mode       dataplane.Mode
	MaxFlows   uint32 // flows in the table, 1024 to 4194304; default 65536
	Idle       Idle
	SweepEvery time.Duration // how often idle flows and expired rules are looked for; default 2 s
	EventRate  uint32        // events a second and processor, the rest is counted as lost; default 20000
	Generic    bool          // use generic XDP even where the driver has native XDP
	KeepGRO    bool          // leave GRO on where XDP is generic: cheaper for the machine, but small segments count as fewer and larger ones
	Fail       Fail
	DeadAfter  time.Duration // silence of the daemon after which Fail holds, 5 s to 1 h; default 30 s
	Log        *slog.Logger  // nil discards
	// Bulk bounds the bulk set; zero is 1,500,000 addresses and 300,000
	// prefixes. Memory is taken as a set needs it, twice while it is replaced:
	// 2.4 MB, 14 bytes an IPv4 entry, 51 an IPv6 entry, and 2 MB more when
	// there are IPv4 prefixes.
	Bulk policy.BulkLimits

	maxRules uint32                     // 0: as built in; tests make tables small
	lruFlows bool                       // keep flows in the kernel's LRU_HASH, to measure against
	clsact   bool                       // tests: as on a kernel without TCX
	spoil    func(*ebpf.CollectionSpec) // tests: what the verifier gets to see
	lend     loader                     // tests: what is in the kernel already, instead of loading it
}

// loader brings what to names of a spec into the kernel, around maps that are
// there already, and puts it there.
type loader func(spec *ebpf.CollectionSpec, to any, reuse map[string]*ebpf.Map) error

func (o Options) load(spec *ebpf.CollectionSpec, to any, reuse map[string]*ebpf.Map) error {
	if o.lend != nil {
		return o.lend(spec, to, reuse)
	}
	return spec.LoadAndAssign(to, &ebpf.CollectionOptions{MapReplacements: reuse})
}

// all lists every interface, the first one first.
func (o Options) all() []Attach {
	return append([]Attach{{o.Interface, o.Role}}, o.Also...)
}

func (o Options) has(r Role) bool {
	return slices.ContainsFunc(o.all(), func(a Attach) bool { return a.Role == r })
}

const (
	defaultMaxFlows  = 65536
	minMaxFlows      = 1024
	maxMaxFlows      = 1 << 22
	defaultSweep     = 2 * time.Second
	defaultEventRate = 20000
	defaultDeadAfter = 30 * time.Second
	maxAttached      = 32
)

func (o Options) withDefaults() Options {
	setDuration(&o.Idle.Unanswered, 5*time.Second)
	setDuration(&o.Idle.TCP, 60*time.Second)
	setDuration(&o.Idle.Other, 15*time.Second)
	setDuration(&o.SweepEvery, defaultSweep)
	setDuration(&o.DeadAfter, defaultDeadAfter)
	if o.MaxFlows == 0 {
		o.MaxFlows = defaultMaxFlows
	}
	if o.EventRate == 0 {
		o.EventRate = defaultEventRate
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDuration(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

func (o Options) validate() error {
	if err := o.validateAttach(); err != nil {
		return err
	}
	switch {
	case o.Mode > dataplane.Enforce:
		return fmt.Errorf("xdp options: mode %d: expected monitor or enforce", o.Mode)
	case o.MaxFlows < minMaxFlows || o.MaxFlows > maxMaxFlows:
		return fmt.Errorf("xdp options: max flows %d: expected %d to %d", o.MaxFlows, minMaxFlows, maxMaxFlows)
	case o.SweepEvery < 10*time.Millisecond:
		return fmt.Errorf("xdp options: sweep every %s: expected at least 10ms", o.SweepEvery)
	case o.Idle.Unanswered < 0 || o.Idle.TCP < 0 || o.Idle.Other < 0:
		return errors.New("xdp options: idle: durations must be positive")
	case o.Fail > FailClosed:
		return fmt.Errorf("xdp options: fail %d: expected open or closed", o.Fail)
	case o.DeadAfter < 5*time.Second || o.DeadAfter > time.Hour:
		return fmt.Errorf("xdp options: dead after %s: expected 5s to 1h", o.DeadAfter)
	}
	return nil
}

func (o Options) validateAttach() error {
	all := o.all()
	if len(all) > maxAttached {
		return fmt.Errorf("xdp options: %d interfaces: expected at most %d", len(all), maxAttached)
	}
	seen := make(map[string]bool)
	for _, a := range all {
		switch {
		case a.Interface == "":
			return errors.New("xdp options: interface: is required")
		case len(a.Interface) > 15 || strings.ContainsAny(a.Interface, "/ \x00"):
			return fmt.Errorf("xdp options: interface %q: not an interface name", a.Interface)
		case a.Role >= roles:
			return fmt.Errorf("xdp options: interface %s: role %d: expected one of %s", a.Interface, a.Role, strings.Join(roleNames[:], ", "))
		case seen[a.Interface]:
			return fmt.Errorf("xdp options: interface %s: is named twice: expected one role for each interface", a.Interface)
		}
		seen[a.Interface] = true
	}
	if !o.has(Sensor) {
		return nil
	}
	if len(o.Networks) == 0 {
		return errors.New("xdp options: networks: a sensor needs the protected networks to tell directions")
	}
	if o.Mode == dataplane.Enforce {
		return errSensor
	}
	return checkNetworks(o.Networks)
}

// errSensor says why copies of packets cannot be dropped.
var errSensor = fmt.Errorf("mode enforce: %w: a sensor sees copies of packets and can drop none: use monitor mode, or detach the sensor", dataplane.ErrUnsupported)

func checkNetworks(list []netip.Prefix) error {
	for _, p := range list {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("xdp options: networks: %s: expected a prefix without host bits", p)
		}
	}
	return nil
}
