// Package xdp is the packet path in the Linux kernel: it loads two eBPF
// programs, hooks them to interfaces (XDP for what enters; TCX, or clsact before
// Linux 6.6, for what leaves), writes rules into their maps and reads flows and
// events out of them. What a packet meets there is written in bpf/, from
// hedgerow.c on; its meaning is that of package dataplane, and
// dataplane/planetest holds it to that.
//
// # Placement
//
// Each interface has a [Role]; all of a plane share one set of tables, and each
// role has its own programs around them. A forwarded packet passes two
// interfaces: it meets the rules at both, and is counted into its flow once, at
// the inside, where both directions of a translated connection carry the host's
// own address (bpf/place.h).
//
// # Life cycle
//
// With [Options].PinDir, links, programs and maps are pinned: enforcement goes
// on when the process ends, by whatever means, and expiry is checked in the
// kernel. The next process takes over: [Load] brings its own programs in around
// the maps that are there, [Plane.Attach] swaps them into the links in one step.
// The folder of the maps carries a hash of all layouts; a build with other
// layouts makes its own tables, takes over those with rules where their layout
// is the same, and otherwise has them applied between Load and Attach. The pin
// folder belongs to one process at a time ([HeldError]). [Plane.Close] leaves
// the pins; [Plane.Detach] and [DetachPinned] end enforcement.
//
// While [Plane.Run] runs, hooks that somebody removed, or that went with their
// interface, are put back as soon as that is possible. It also tells the kernel
// that the daemon is there; [Options].Fail says what happens when it is not.
//
// # Privileges
//
// CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or root. [Probe] tells without
// touching anything what a machine can do.
//
// # What is not exact
//
// In generic mode, and where a network card merges received segments, a packet
// counts as the kernel hands it over, which may be larger than on the wire; on
// egress, packets that the kernel will cut up are counted as they will be on
// the wire. Two processors that handle packets of one direction of one flow at
// the same moment may lose a count.
//
// Stats.Packets and the hits of rules count sightings: a forwarded packet that
// passes two interfaces is sighted twice. On an outside interface the first
// packet of a connection to the gateway itself comes before anything is known of
// it and is not counted, and a datagram that the gateway answers makes the
// gateway the initiator. A sensor takes the receiver for the inside end where
// neither end is.
package xdp
