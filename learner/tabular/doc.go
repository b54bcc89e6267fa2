// Package tabular is labelled tables of flows whose columns are their own: data
// sets, imported history, whatever does not have the schema of learner/feature.
//
// The splits of split.go are those that do not leak: rows that are copies of
// each other, that follow each other in time at one place, or that are of one
// family of attacks stay on one side. All of it is pure and seeded.
package tabular
