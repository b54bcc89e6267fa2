// Package detection measures what the small scorer of the kernel detects beside the
// full model that it was distilled from, on captures with ground truth, and how
// long the way from a new label to a new scorer is. It is behind hedgerow bench
// kernel-model.
//
// Of each capture the flows that reach packet 4 are parted in time: those of the
// first half are confirmed, as an operator would, and teach the full model, which
// teaches the scorer; the others are looked for. Normal flows are those of a named
// companion, parted by capture: half of the captures teach, the other half sets the
// threshold at 1 % false alarms, at each milestone for itself. Both models are
// measured on the very same flows at the very same packet.
//
// Beside them stand what explains the figures, and what proves them: the full model
// without the features of a flow's surroundings, which no scorer of single flows
// has; a network of 8-bit integers in place of the trees; and the control, a scorer
// whose labels and teacher's words were drawn at random, which must find no more
// than the threshold lets through.
package detection
