// Package sim is the bench on which a consortium is tried out before it exists:
// many sites, some of which lie, learn together on real intrusion data, and what
// each of them has of it is measured.
//
// What decides is the code of the gateways: the rules and their fixed point
// (federation/robust), the bounds of messages (federation/wire), the gate of each
// site (learner/lifecycle). What is replaced is what a simulation has to replace:
// the traffic by a labelled table, the wire by a slice, the clock by the number of
// the round. At the depth of rounds a site is a table of rows and a classifier;
// there are no packets and no indicators. At the depth of a mesh a site is a whole
// node (package node) over a software plane: packets of ordinary work and of
// attackers that go from site to site, the learner, gossip, policy. It is stepped by a
// virtual clock (node.Steps), and has no goroutine of its own.
//
// A Scenario says everything, its seed included: the same scenario gives the same
// bytes on any number of cores, since each site's randomness comes from the seed,
// the site and the round alone, and what sites make is put together in their order.
//
// A Library is what names are looked up in. A rule, an attack, a partition or a
// data set of one's own is a value that is appended to its list.
package sim
