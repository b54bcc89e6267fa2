// Package robust holds the rules that make one update out of many, some of which
// withstand members that lie. It is pure, and every site that holds the same
// updates gets the same bytes, in whatever order they came and on whatever
// machine.
//
// What a rule is given. Run cuts each update to a Euclidean norm, turns it into
// whole numbers of 2^-24 (32 bits each) and sorts the updates by their content.
// From there a rule computes with whole numbers only: sums of 64 bits that
// cannot overflow within the bounds below, exact squared distances, roots
// rounded down. So there is no order of additions to agree on, no fused
// multiplication, no NaN that answers no to every comparison, and ties fall
// the same way everywhere. An update that is not finite counts as one that
// changes nothing: whoever sent it has used his vote, and nobody is stopped.
//
// What a rule promises. Each takes f, the number of liars it has to withstand,
// and refuses what voids the promise of its paper (Check). f counts
// organisations, each with one update. The promises hold for honest updates that
// are alike; where sites differ much, less is withstood than the paper's half:
// the default tolerates 30 %, not 50 %. And none of them stops a backdoor that
// changes little: that is for each site's gate.
//
// A further rule is one file with a type that implements Rule, and one line in
// All, or in a Set of its own.
package robust
