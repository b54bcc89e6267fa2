package xdp

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// Role says what the interface stands before.
type Role uint8

// Roles.
const (
	// Inside: the protected hosts are behind the interface. What enters it comes
	// from inside, what leaves it goes there.
	Inside Role = iota
	// Host: the interface is this machine's own, which is what is protected.
	Host
)

// String is "inside" or "host".
func (r Role) String() string {
	if r == Host {
		return "host"
	}
	return "inside"
}

// hooks are the directions that packets at XDP and at TCX egress travel.
func (r Role) hooks() (xdp, tcx dataplane.Hook) {
	if r == Host {
		return dataplane.ToInside, dataplane.FromInside
	}
	return dataplane.FromInside, dataplane.ToInside
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
	// PinDir is a folder in a BPF file system under which links and maps are
	// pinned. Empty: nothing is pinned and enforcement ends with the process.
	PinDir     string
	Mode       dataplane.Mode
	MaxFlows   uint32 // flows in the table, 1024 to 4194304; default 65536
	Idle       Idle
	SweepEvery time.Duration // how often idle flows and expired rules are looked for; default 2 s
	EventRate  uint32        // events a second and processor, the rest is counted as lost; default 20000
	Generic    bool          // use generic XDP even where the driver has native XDP
	Log        *slog.Logger  // nil discards
	// Bulk bounds the bulk set; zero is 1,500,000 addresses and 300,000
	// prefixes. Memory is taken as a set needs it, twice while it is replaced:
	// 2.4 MB, 14 bytes an IPv4 entry, 51 an IPv6 entry, and 2 MB more when
	// there are IPv4 prefixes.
	Bulk policy.BulkLimits

	maxRules uint32 // 0: as built in; tests make tables small
	rawLink  bool   // frames begin with the IP header; Open reads it off the link
}

const (
	defaultMaxFlows  = 65536
	minMaxFlows      = 1024
	maxMaxFlows      = 1 << 22
	defaultSweep     = 2 * time.Second
	defaultEventRate = 20000
)

func (o Options) withDefaults() Options {
	setDuration(&o.Idle.Unanswered, 5*time.Second)
	setDuration(&o.Idle.TCP, 60*time.Second)
	setDuration(&o.Idle.Other, 15*time.Second)
	setDuration(&o.SweepEvery, defaultSweep)
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
	switch {
	case o.Interface == "":
		return errors.New("xdp options: interface: is required")
	case len(o.Interface) > 15 || strings.ContainsAny(o.Interface, "/ \x00"):
		return fmt.Errorf("xdp options: interface %q: not an interface name", o.Interface)
	case o.Role > Host:
		return fmt.Errorf("xdp options: role %d: expected inside or host", o.Role)
	case o.Mode > dataplane.Enforce:
		return fmt.Errorf("xdp options: mode %d: expected monitor or enforce", o.Mode)
	case o.MaxFlows < minMaxFlows || o.MaxFlows > maxMaxFlows:
		return fmt.Errorf("xdp options: max flows %d: expected %d to %d", o.MaxFlows, minMaxFlows, maxMaxFlows)
	case o.SweepEvery < 10*time.Millisecond:
		return fmt.Errorf("xdp options: sweep every %s: expected at least 10ms", o.SweepEvery)
	case o.Idle.Unanswered < 0 || o.Idle.TCP < 0 || o.Idle.Other < 0:
		return errors.New("xdp options: idle: durations must be positive")
	}
	return nil
}
