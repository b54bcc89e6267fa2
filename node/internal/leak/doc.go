// Package leak attacks the updates that a site sends, on flows of real captures,
// and says how well that goes with noise and without: hedgerow bench privacy.
//
// # Membership
//
// The attacker knows the model before and after, and asks of a flow whether it
// taught. It is scored twice, by how much its loss fell (Yeom et al. 2018) and by
// how far the update goes along its gradient; the better of the two is reported.
// Half of the flows asked about taught, half did not; 0.5 is guessing.
//
// The planted flow is the worst case: one odd flow is in half of the trainings,
// all else is the same, and the attacker tells which.
//
// # Inversion
//
// The attacker rebuilds flows from the update itself. One flow in one step shows
// that the attack works; a whole update is what a site really sends. A guess
// counts when it comes near a flow that taught; how many flows that did not teach
// it comes near to says what that is worth.
package leak
