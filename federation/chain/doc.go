// Package chain is the vocabulary of a consortium's sealed history: what a block
// must be to follow another, who counts, what is final, and what the models were.
// It is pure: no clock, no input or output, no randomness.
//
// A block holds the commitments of a round under the signatures of two thirds, the
// deltas that were revealed, at most one change of the roster, and the hash of the
// model that the deltas make of the parent's. Signed by two thirds of the roster
// it is sealed. A sealed block is final once a child in the very next round is
// sealed: the two-chain rule of Jolteon (Gelashvili et al. 2021, arXiv 2106.10362)
// and, before it, of HotStuff. That no two final blocks conflict rests on three
// duties of each honest member, which federation/council keeps: one signature per
// round, rounds only upwards, and no signature under a block whose parent is below
// the highest parent that it ever signed for. It holds while fewer than a third of
// the roster lie.
//
// A change of the roster acts from the block that makes it final, for the blocks
// after that. One change at a time: while one is on its way no other is accepted,
// because quorums of two rosters that differ by one organisation still share an
// honest member, and those that differ by two need not. An organisation that changes
// its key is one out and one in, so its new key counts towards no quorum until a
// later block is final: two thirds of all must then come from the others.
package chain
