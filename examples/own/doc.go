// Package own holds ideas of one's own for a simulation: a rule, an attack, a
// partition and a data set, each one file, and Library, in which each is one line.
package own

import "github.com/hedgerow-mesh/hedgerow/node/sim"

// Library is what comes with hedgerow, and ours.
func Library() *sim.Library {
	lib := sim.Builtin()
	lib.Rules = append(lib.Rules, Middle{})
	lib.Attacks = append(lib.Attacks, Silence())
	lib.Partitions = append(lib.Partitions, Halves{})
	lib.Sets = append(lib.Sets, Rings{})
	return lib
}
