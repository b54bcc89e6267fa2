// Package quality says whether a window of traffic is fit to be learnt from.
//
// A site learns from what it sees, so what it sees is looked at before it
// teaches: reports that the schema does not allow, reports twice, clocks that go
// back or ahead, a capture that hears one side only, flows that stand among
// attacks, and inputs that are not distributed as they were when the model was
// trained. A Window takes reports up to a bound, gives a Report with a verdict and
// its reasons in words, and hands its reports over. What a bad window holds never
// trains a model; that is the caller's part, and Report.Teaches is the answer.
//
// Change of an input is measured by the population stability index, which is
// Jeffreys' divergence between two binned distributions: the sum of (q-p) ln(q/p)
// over the bins, deciles of the training window and one bin for "absent". It was
// preferred to the Kolmogorov-Smirnov distance because it needs counts and not the
// samples, because "absent" and yes/no features are bins like any other, and
// because it measures how much a distribution moved: at thousands of flows, which
// depend on each other, a test of equality refuses everything. Its limit is 0.25,
// the usual mark of a large shift (Siddiqi, Credit Risk Scorecards, 2006), or what
// chance does to samples of these sizes where that is more: without change the
// index times NM/(N+M) follows a chi-squared distribution of one degree less than
// there are bins (Yurdakul, Statistical Properties of Population Stability Index,
// Western Michigan University, 2018).
//
// The package is pure: no clock, file or goroutine.
package quality
