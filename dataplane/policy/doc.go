// Package policy decides, without a clock, a kernel or a lock of its own, what
// becomes of a packet and what may become a rule.
//
// Table is the rule table of a packet path in Go: which rules are in force at a
// given moment, which of them match a packet, which one decides, and what the
// never-block list saves. Every live rule that matches a packet counts a hit;
// the strongest action decides; among equals the flow's rule goes before a
// service's, a pair's, an address's and a prefix's, the source before the destination,
// and the longer prefix before the shorter. The table is bounded and says
// ErrFull; it never gives up a rule to make room for another. Beside the rules
// it holds one bulk set, which is replaced whole and asked before them.
//
// Guard stands in front of it and bounds harm: it refuses a rule that a
// never-block entry makes void, that is too wide, that is one too many this
// hour, or with which all blocks together would touch too large a share of the
// hosts or services that normal traffic needs.
//
// Times are arguments. Neither type is safe for concurrent use: the owner locks.
package policy
