// Package xdp is the packet path in the Linux kernel: it loads two eBPF
// programs, hooks them to one interface (XDP for what enters, TCX egress for
// what leaves), writes rules into their maps and reads flows and events out of
// them. What a packet meets there is written in bpf/, from hedgerow.c on; its meaning is
// that of package dataplane, and dataplane/planetest holds it to that.
//
// # Placement
//
// On a gateway the interface is the one before the protected hosts ([Inside]):
// both directions of a translated connection are seen there with the hosts' own
// addresses. On a machine that protects itself it is its own interface
// ([Host]).
//
// # Life cycle
//
// With [Options].PinDir, links and maps are pinned: enforcement goes on when
// the process ends, by whatever means, and expiry is checked in the kernel.
// The next [Open] takes over: it loads its own programs around the maps that
// are there and swaps them into the links in one step. The folder of the maps
// carries a hash of all layouts; a build with other layouts starts with empty
// tables, and its caller applies the rules anew. [Plane.Close] leaves the pins;
// [Plane.Detach] and [DetachPinned] end enforcement.
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
// the same moment may lose a count. A flow between two inside hosts through
// the same interface is seen, and counted, twice.
package xdp
