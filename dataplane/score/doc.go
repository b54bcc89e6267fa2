// Package score is the model that the kernel can run: an integer scorer of
// flows, with the integer rules that turn a flow into what it looks at.
//
// A flow is scored where the plane reports it, when its 4th, 8th, 16th, 32nd and
// 64th packet was counted, and only by what the plane itself holds of it. Every
// feature is derived by shifts, one division and saturation, so that the C of
// dataplane/xdp and this package compute the same int32 from the same flow;
// there are no floats, and no feature is ever unknown. A Scorer is a forest of
// oblivious trees (each level asks one question of all flows) for each
// milestone, or one for several, whose leaves are added up; the sum is the
// score, and thresholds say what follows from it. Trees of this form compile to
// instructions without branches.
//
// The package is the reference: dataplane/xdp compiles a Scorer to a program
// that must agree with Eval and Decide bit for bit, and dataplane/softplane
// calls them. A Scorer has one canonical encoding, and its Hash, which every
// verdict names, is taken over that.
package score
