// Package feature turns a flow record into the numbers that a model reads.
//
// The schema is versioned and fixed: feature number i has the same meaning,
// unit and scale at every site, so weights that were learnt at one site mean
// the same at another. Every number is brought into [0, 1] (signed sizes into
// [-1, 1]) by a transform that depends on the schema alone, never on data, and
// that can be inverted: Value gives the natural unit back and Describe says it
// in words. What cannot be known of a flow is absent: its value is 0 and its
// bit in Vector.Has is clear. A feature is absent for a reason of the flow (no
// reply yet, not TCP: Feature.Absent) or because the record came from a log
// whose tool does not tell it (Feature.Needs): records of the kernel, of
// captures and of imported logs go through the same code.
//
// Most features are of the flow itself, as far as it got: they make sense at
// every milestone (packet 4, 8, 16, ...) as well as at the end, and the number
// of packets so far is itself a feature. The others are of the flow's context:
// what its initiator did lately, as rates, and how well this site knows the
// peer, the service and the port. They come from Context, whose memory is
// fixed when it is made; no flood can make it grow. Beside them, and read by no
// model, Horizons counts what hosts do over a minute, an hour and a day.
//
// An address, a port number or an absolute time is never a feature.
package feature
