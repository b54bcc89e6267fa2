// Package planetest holds every packet path to one meaning. Run plays scripted
// frames into a plane and looks at what passed, what was told, and what the
// plane says that it enforces; dataplane/softplane runs it always,
// dataplane/xdp as root against the loaded kernel programs. The frame builders
// are exported because benchmarks, simulations and demonstrations need the same
// packets.
//
// What the vocabulary in dataplane and dataplane/flow leaves open is decided
// here:
//
//   - The initiator of a flow is who sent the packet that made it. Only a SYN
//     without ACK that comes later, the first of its flow, corrects that: its
//     sender becomes the initiator, and all that is told by end is swapped.
//   - A packet that a rule drops, or in monitor mode would drop, makes no flow
//     and changes nothing of one but Record.Dropped.
//   - EventFirstDrop comes once for each applied rule and mode. Its record is
//     the flow's, or, where no flow exists, one that holds the key, the sender
//     as initiator, the time, and Dropped 1. A rule that replaces one of the
//     same target and action keeps the hits and starts its first drop anew.
//   - A TCP flow ends at a RST, which is accounted first, or with the packet
//     after which both FINs are acknowledged. That packet emits EventEnd and no
//     milestone.
//   - Resets that match no flow are kept apart, as a record of nothing else:
//     those of one key and sender that are alike (flags, length, no payload)
//     are counted as one burst, without gaps. It ends by silence, or when
//     anything else of its key comes, with EndRST. To all but that record they
//     belong to no flow: they cost no budget, and the next packet is new.
//   - The initial sequence number of a side is that of its latest SYN. End X is
//     validated by any segment of X whose ACK number is the other side's
//     initial sequence number plus one.
//   - Payload sizes of UDP and ICMP leave out eight header bytes; for protocols
//     without a known header, payload is all that follows the IP headers.
//   - Every matching rule counts, not the narrowest only: the strongest action
//     wins, and among equals flow, service, pair, address, prefix in this order.
//   - A quarantine does not match packets whose other end is on the remediation
//     list; they are no hits of it, and other rules hold for them.
//   - Budgets are charged only for what no stronger rule drops, the flow's first,
//     then the source's, the service's and the destination's; one that refuses
//     ends it, and what it refuses is its hits. A flow's budget is in bytes of IP
//     packets; one packet passes a full bucket whatever its size.
//   - EventAnswer comes for the first answer to a query that an inside host was
//     seen to send, if neither was dropped, and only while somebody watches.
//   - Record.Hello is what a TLS client said first, while somebody watches. Of a
//     flow's first three payload packets those of the initiator are read: over TCP
//     if the first of all looks like a TLS handshake record, over UDP those of at
//     least 1,200 bytes that begin as an Initial packet of QUIC 1 (or draft 29) or 2; of each the
//     first 2,048 bytes. What they say is in the reports that come after the packet
//     that completes it. Packets that are dropped tell nothing.
//   - A rule whose expiry has passed is not enforced and not listed; applying
//     one removes its predecessor. Read back, an expiry may be off by a clock
//     tick (1.1 s).
//   - A fragment other than the first meets address rules only, is counted in
//     Stats.NotAccountedFrag, dropped or not, and belongs to no flow.
//   - Malformed packets pass and belong to no flow; where the IP header was
//     good, address rules apply all the same. Kinds: "link", "ethernet", "vlan",
//     "pppoe", "ipv4", "ipv6", "tcp", "udp", "icmp" for a header cut or
//     contradictory, or a third VLAN tag; "ipv4-length" and "ipv6-length" for a
//     packet that claims more than the frame holds, or less than its header;
//     "ipv6-ext" for extension headers cut or more than six; "fragment" for one
//     that cuts the transport header, overlaps that of TCP, or ends above 65,535.
//   - A tunnel is a flow of its outer addresses, without ports unless UDP
//     carries it; what is inside is payload.
//   - The bulk set is asked first, about the source and then, unless that is
//     listed, about the destination; the match that decides is the one that
//     counts a hit. What it drops is no hit of any rule and is not in
//     Record.Dropped: nothing else is looked at. Equal entries are one: the one that lives
//     longest. The first drop is told once for each reason and mode, and not
//     anew when a new set has the reason too.
//   - The plane's own scorer is asked when all else let the packet pass, after the
//     milestone was told. The packet at which it suspends is counted in its flow
//     and dropped all the same; a verdict is told by EventVerdict, the one that
//     decides ahead of the other's. While a flow is held, its packets are dropped
//     as those of a rule, without a first drop to tell, and reach no milestone.
//     A stronger rule is asked before a hold, the never-block list ahead of its drop.
//     What flows are held for, a limit or a suspension, replaces what they were
//     held for before, and its time begins anew.
//   - Stats.Packets counts every frame, Stats.Bytes those bytes that belong to
//     IP packets.
package planetest

import (
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Fixture is a plane into which a test can put frames.
type Fixture interface {
	dataplane.Plane
	dataplane.Bulk
	// Inject shows the plane one Ethernet frame at a hook and tells whether it
	// passed. Addresses of the suite's inside hosts are in 10.0.0.0/8 and fd00::/8.
	Inject(hook dataplane.Hook, frame []byte) (passed bool, err error)
	// Poll delivers all events that are pending now, in order.
	Poll(handle func(*dataplane.Event)) error
}

// Run plays the suite. open returns a fresh plane with an empty flow table, no
// rules, and at least 1,000 flows of room; it registers its own clean-up.
func Run(t *testing.T, open func(t *testing.T, mode dataplane.Mode) Fixture) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, &rig{Fixture: open(t, c.mode), t: t})
		})
	}
}

type testCase struct {
	name string
	mode dataplane.Mode
	run  func(t *testing.T, r *rig)
}

func cases() []testCase {
	var all []testCase
	for _, group := range [][]testCase{flowCases(), ruleCases(), neverCases(), parseCases(), ladderCases(), nameCases(), helloCases(), budgetCases(), bulkCases(), auditCases(), scoreCases(), fellowCases()} {
		all = append(all, group...)
	}
	return all
}
