package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
)

// FloodKind is what a flood ran into. The numbers are those of the kernel.
type FloodKind uint8

// Kinds. The first four are budgets for new flows from outside.
const (
	FloodNone        FloodKind = iota
	OverSource                 // of one IPv4 address, or one IPv6 /64
	OverSourceNet              // of one IPv4 /24, or one IPv6 /56
	OverService                // to one address, port and protocol
	OverDestination            // to one address
	BreakerOpened              // too many new flows of one direction for the gateway itself
	BreakerClosed              // and over
	Challenged                 // sources unknown here are asked to prove their address
	FloodKinds       = iota    // how many there are
	budgetKinds      = 4       // how many of them are budgets
	maxFloodRate     = 10_000_000
	maxGuarded       = 1024
	maxGuardedTuples = 16
)

var floodNames = [FloodKinds]string{"none", "source", "source-net", "service", "destination", "breaker-open", "breaker-closed", "challenge"}

// String is the kind's word.
func (k FloodKind) String() string {
	if int(k) < len(floodNames) {
		return floodNames[k]
	}
	return fmt.Sprintf("flood-%d", uint8(k))
}

// Budgets are the kinds that are budgets.
func Budgets() [budgetKinds]FloodKind {
	return [budgetKinds]FloodKind{OverSource, OverSourceNet, OverService, OverDestination}
}

// Flood bounds what new flows may cost. The zero value bounds nothing.
//
// The four budgets are new flows a second, 0 for no limit; each allows one
// second's worth at once. They are asked only of a packet from outside that
// would make a flow: what belongs to a flow is never charged. A source that has
// lately proved its address, by a handshake or by answering a challenge, is held
// to its own budget alone, and that one is kept for it apart from all others.
// A packet over a budget is dropped and leads to nothing else: who sent it is
// not known.
type Flood struct {
	Source      uint32 // one IPv4 address, or one IPv6 /64
	SourceNet   uint32 // one IPv4 /24, or one IPv6 /56
	Service     uint32 // to one (address, port, protocol)
	Destination uint32 // to one address

	// Breaker is how many new flows a second, of each direction, the plane
	// follows. Above it, and until a quarter of a second went by with less than
	// half of it, packets that belong to no flow pass without one, unless their
	// source proved its address or the never-block list names them. 0: no limit.
	Breaker uint32
	// BreakerDrops makes those packets drop instead, when they come from outside.
	BreakerDrops bool

	// Protected are TCP services whose unknown clients are asked for a proof of
	// their address while the service or its address is over its budget, where
	// the plane sees the packet early enough to answer it.
	Protected []Guarded
	// Dark are prefixes of addresses that nobody uses. Who completes a handshake
	// with one has proved its address and is told by EventProof.
	Dark []netip.Prefix
}

// Guarded names a TCP port of the addresses in Prefix; port 0 is every port.
type Guarded struct {
	Prefix netip.Prefix
	Port   uint16
}

// FloodGuard is the part of a plane that stands floods. SetFlood replaces all
// of it at once; flows and proofs that are known stay.
type FloodGuard interface {
	SetFlood(Flood) error
	// FloodTotals are those of Stats, at a fraction of its cost.
	FloodTotals() (FloodStats, error)
}

// FloodStats are running totals. Packets over a budget are counted in
// Stats.Dropped or Stats.WouldDrop too.
type FloodStats struct {
	// BudgetDropped are packets over a budget, by FloodKind; in monitor mode
	// those that would have been dropped.
	BudgetDropped  map[string]uint64 `json:"budget_dropped"`
	BreakerOpen    [2]bool           `json:"breaker_open"` // now, by Hook
	BreakerTrips   uint64            `json:"breaker_trips"`
	BreakerDropped uint64            `json:"breaker_dropped"` // packets that the open breaker dropped, or in monitor mode would have
	Untracked      uint64            `json:"untracked"`       // packets that passed without a flow while the breaker was open
	Challenges     uint64            `json:"challenges"`      // SYNs answered by a demand for proof; in monitor mode those that would have been
	DarkAnswers    uint64            `json:"dark_answers"`    // segments to dark addresses that were answered; in monitor mode those that would have been
	Proofs         uint64            `json:"proofs"`          // sources that proved their address, anew or again
	BadProofs      uint64            `json:"bad_proofs"`      // answers to challenges that did not hold the number asked for
}

// Active says whether anything is bounded at all.
func (f *Flood) Active() bool {
	return f.Source|f.SourceNet|f.Service|f.Destination|f.Breaker != 0 || len(f.Protected)+len(f.Dark) != 0
}

// Rates are the budgets in the order of Budgets.
func (f *Flood) Rates() [budgetKinds]uint32 {
	return [budgetKinds]uint32{f.Source, f.SourceNet, f.Service, f.Destination}
}

// Validate checks the form of f. It does not know which addresses are in use.
func (f *Flood) Validate() error {
	for i, r := range append([]uint32{f.Breaker}, f.Source, f.SourceNet, f.Service, f.Destination) {
		if r > maxFloodRate {
			name := "breaker"
			if i > 0 {
				name = Budgets()[i-1].String()
			}
			return fmt.Errorf("flood: %s: %d new flows a second: expected 0 to %d", name, r, maxFloodRate)
		}
	}
	if len(f.Protected) != 0 && f.Service|f.Destination == 0 {
		return errors.New("flood: protected: a proof is asked only over a budget: set one for services or destinations")
	}
	if len(f.Protected) > maxGuarded || len(f.Dark) > maxGuarded {
		return fmt.Errorf("flood: %d protected and %d dark prefixes: expected at most %d each: %w",
			len(f.Protected), len(f.Dark), maxGuarded, ErrFull)
	}
	ports := map[netip.Prefix]int{}
	for i, g := range f.Protected {
		if err := checkGuarded("protected", g.Prefix); err != nil {
			return err
		}
		for _, e := range f.Protected[:i] {
			if e.Prefix != g.Prefix && e.Prefix.Overlaps(g.Prefix) {
				return fmt.Errorf("flood: protected: %s overlaps %s: name each address by one prefix", g.Prefix, e.Prefix)
			}
		}
		if ports[g.Prefix]++; ports[g.Prefix] > maxGuardedTuples {
			return fmt.Errorf("flood: protected: %s: more than %d ports: use port 0 for all: %w", g.Prefix, maxGuardedTuples, ErrFull)
		}
	}
	for i, d := range f.Dark {
		if err := checkGuarded("dark", d); err != nil {
			return err
		}
		for _, g := range f.Protected {
			if g.Prefix.Overlaps(d) {
				return fmt.Errorf("flood: dark: %s overlaps the protected %s: an address is used or it is not", d, g.Prefix)
			}
		}
		for _, e := range f.Dark[:i] {
			if e.Overlaps(d) {
				return fmt.Errorf("flood: dark: %s overlaps %s: name each address once", d, e)
			}
		}
	}
	return nil
}

func checkGuarded(what string, p netip.Prefix) error {
	switch {
	case !p.IsValid() || p != p.Masked():
		return fmt.Errorf("flood: %s: %s: expected a prefix without host bits", what, p)
	case p.Addr().Is4In6():
		return fmt.Errorf("flood: %s: %s: IPv4-mapped IPv6 address: expected plain IPv4", what, p)
	case p.Addr().Is4() && p.Bits() < 8, p.Addr().Is6() && p.Bits() < 16:
		return fmt.Errorf("flood: %s: %s: prefix too wide: expected /8 or longer, for IPv6 /16", what, p)
	}
	return nil
}
