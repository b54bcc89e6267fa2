// Package distill makes of a model of this site the small integer scorer that the
// kernel can run (dataplane/score).
//
// The model, the teacher, judges a flow by 64 numbers, of which some tell of its
// surroundings: who its host is talking to, and how well the site knows the peer.
// The scorer, the pupil, has what the plane itself holds of the one flow at
// packets 4, 8, 16, 32 and 64. It learns from recent flows of this site what the
// teacher would alarm on ([Memory] holds them with the teacher's p-values), and
// from people what was an attack (Hinton, Vinyals and Dean 2015, with the labels
// beside the teacher's word). What cannot be told from normal by the flow alone,
// it lets pass: the teacher sees that flow too.
//
// It is boosted oblivious trees (learner/trees), grown on the integers of
// score.Vector, so that thresholds are integers as well; leaves become int16 by
// one factor, and everything after that (thresholds, figures) is measured with
// the very scorer that will decide.
//
// A flow is scored up to five times, and has one budget: the share of normal
// flows for which the scorer may act at all. Scores of each milestone become
// p-values by held-out normal flows, the least p-value of each of those flows is
// calibrated once more, and the level at which the budget is kept gives each
// milestone its threshold. How sure that is, is told as an exact interval.
//
// Equal flows, options and seed give equal bits. Nothing here knows an address, a
// clock or a file.
package distill
