// Package intake reads what others recorded: packet captures, and the ground
// truth that comes beside some of them.
//
// Captures are pcap (both byte orders, microseconds and nanoseconds, and the
// variant with a longer record header that some kernels wrote) and pcapng
// (several sections and interfaces, each with its own link type and clock), any
// of them gzipped. The readers are our own: a capture is hostile input, and a
// length in it must neither make the process allocate what it claims nor hide
// at which byte the file went wrong. Everything ahead of a fault is delivered;
// then comes one error that names file, byte and what was expected there.
package intake
