//go:build linux

// Package bench measures what the kernel's packet path costs, beside what
// operators run today, and says how sure it is of each ratio. It is behind
// hedgerow bench dataplane.
//
// # What is compared
//
// The shipped program with all its stages on, not a bare lookup: a packet is
// parsed, judged by every table, and accounted. The peers are nftables in the
// layouts that blocklist bouncers use, ipset, and the kernel's own maps; what is
// not installed is left out with a word.
//
// # How a packet's cost is taken
//
// Each receiver is one end of a veth pair in a network namespace of its own. A
// generator of live frames is tied to one processor, the receiver's NAPI thread
// to another; the thread's processor time over the packets that it handled is
// the figure. All packets end in a drop, so that nothing behind the comparison
// is measured, and verdict counters are compared with what the sources imply in
// every round: a measurement whose verdicts are not exactly what was expected
// fails.
//
// # How sure
//
// Subjects take turns within each round. A ratio is taken within its round,
// where both met the same machine; the mean of the ratios' logarithms has
// Student's t for its lower bound at 95 % (one-sided). Absolute figures move with
// the machine and its other work; ratios of one round hardly do.
package bench
