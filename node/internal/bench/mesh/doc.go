// Package mesh measures what people notice of the mesh: how soon a block at one
// site is one at all others, how soon a question is answered, how long a round of
// models takes and what it sends, and what a member that floods costs the rest.
// It is behind hedgerow bench mesh.
//
// # What runs
//
// Real libp2p hosts in one process, each listening on a port of the loopback
// interface and connected with every other, under real members of the federation.
// Where blocks are measured, each site is a whole node: its store is on the disk,
// its machine decides, and its packet path is the software plane, which notes when
// a rule is in force. Nothing is replayed or mocked, and every delay is the
// difference of two readings of one clock.
//
// # What that means for the figures
//
// All sites share this machine's processors, where real ones have their own, and
// nothing lies between them, where real ones have the internet. So what a delay is
// made of here is computing and queues: a message's signatures, the shape of the
// mesh, fifty sites' work on few processors. To a figure for sites apart, add the
// way between them.
package mesh
