// Package metrics says how good scores and classes are, and how sure that is.
//
// A score is better the higher it ranks attacks above normal traffic. Accuracy
// hides failure where classes are unlike in size, so what is reported is the
// ranking (area under the ROC curve), and what an operator would live with:
// the share of attacks found at a fixed share of false alarms. Rows of equal
// score are one step of a threshold and are never parted: a detector that says
// the same of everything finds nothing at 1 % false alarms.
//
// Bounds come from the bootstrap (Efron 1979), drawn within attacks and normals
// apart, or within whole clusters where rows depend on each other; two scorers
// are compared on the same draws, so that what is common to both cancels.
// Everything here is pure, and equal seeds give equal figures.
package metrics
