package sim

import (
	"math/rand/v2"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/federation/wire"
)

// A Lie is what sites of a mesh say together to mislead the others. Beside it they do
// what honest sites do.
type Lie struct {
	Name string
	// Say is what all liars say at a turn, one of every lieEvery seconds; nil says
	// nothing.
	Say func(v LieView) []Word
	// Masks is how many further sites each liar's organisation speaks through.
	Masks int
	// Renews is after how many turns the liars' organisations leave, and come back
	// under other names, to observe for as many turns before they count; 0: never.
	Renews int
	// Forges sends, from outside, first packets in the names of the innocent.
	Forges bool
}

// Word is what a liar says of an address.
type Word struct {
	Addr   netip.Addr
	Stance wire.Stance
}

// LieView is what liars know.
type LieView struct {
	Turn     int          // from 0
	Innocent []netip.Addr // whom ordinary work needs
	Hostile  []netip.Addr // attackers that have begun
	Members  []netip.Addr // where sites of the mesh are met
	Rand     *rand.Rand
}

// lieEvery is the time between two turns, in seconds.
const lieEvery = 5

// forgedEach is how many packets are forged towards each site at a turn: of a scan's
// size.
const forgedEach = 40

func builtinLies() []Lie {
	return []Lie{
		{Name: "bad-mouthing", Say: accuse},
		{Name: "ballot-stuffing", Say: defend},
		{Name: "on-off", Say: func(v LieView) []Word {
			if v.Turn/6%2 == 0 { // earn standing first
				return words(v.Hostile, wire.Sights)
			}
			return accuse(v)
		}},
		{Name: "sybil", Say: accuse, Masks: 4},
		{Name: "whitewashing", Say: accuse, Renews: 6},
		{Name: "false-flag", Say: func(v LieView) []Word { return words(one(v.Members, v.Turn), wire.Claims) }},
		{Name: "forged-sources", Forges: true},
	}
}

// accuse is one innocent a turn, the same for all liars.
func accuse(v LieView) []Word { return words(one(v.Innocent, v.Turn), wire.Claims) }

// defend disputes whatever is said of attackers.
func defend(v LieView) []Word { return words(v.Hostile, wire.Disputes) }

func one(all []netip.Addr, turn int) []netip.Addr {
	if len(all) == 0 {
		return nil
	}
	return all[turn%len(all):][:1]
}

func words(of []netip.Addr, s wire.Stance) (out []Word) {
	for _, a := range of {
		out = append(out, Word{a, s})
	}
	return out
}
