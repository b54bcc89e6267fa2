// Package tabular learns attacks from labelled tables of flows: data sets,
// imported history, whatever has columns of its own and not the schema of
// learner/feature.
//
// A Table is columns of numbers and words. A Detector is fitted to some of its
// rows and scores any: boosted trees and a small classifier know the attacks
// that they were shown; an autoencoder that saw normal rows only, and the
// distance to the nearest of them, know what normal looks like. The two kinds
// know different things, and how they are combined decides (Combine).
//
// Nothing here looks at a row that it was not given: encodings, scales, word
// lists and the way of combining are all fitted on the training rows. The
// splits of split.go are those that do not leak: rows that are copies of each
// other, that follow each other in time at one place, or that are of one
// family of attacks stay on one side.
//
// All of it is pure and seeded; networks are trained by learner/internal/graph.
package tabular
