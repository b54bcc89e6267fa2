// Package xdpbench runs packet programs for measurements: the shipped one as it
// is, wrapped in a few instructions that count its verdicts, and the plain ones
// that it is compared with. It offers two ways to run them. A test run repeats
// a program over one frame whose source changes each time; the kernel overlaps
// the cache misses of successive runs there, so its figures are bounds of
// throughput. On a link, a generator of live frames sends to a receiver, where
// the cost of a packet is what it is in service.
//
// It measures nothing by itself and makes no namespaces: that is the duty of
// its caller, which compares with programs outside of the kernel too.
package xdpbench
