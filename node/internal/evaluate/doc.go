// Package evaluate measures what the learner's parts are worth on labelled
// tables, beside simple references that are trained in the same run on the same
// rows, and says how sure each figure is.
//
// The test rows are used once: for the figures. The encoding, the scales, the
// way of combining and the weights of classes are fitted on training rows only
// (package tabular sees no others), and every way that was tried is in the
// report. A control trains on shuffled labels: if that finds anything, a split
// leaks.
package evaluate
