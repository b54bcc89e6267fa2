// Package drift says when a site's traffic is no longer what its model was
// trained on, and by what: which features moved, which hosts moved them.
//
// Inputs are compared by the population stability index over quantile cells of
// the reference (Siddiqi 2006), a symmetric Kullback-Leibler divergence. How
// large it gets by chance is known: it is distributed as (1/n + 1/m) times a
// chi-square of cells-1 degrees (Yurdakul and Naranjo 2020), with n and m the
// numbers of independent observations. Reports are not independent, so causes
// (one host, one service of one peer) are counted instead, and no cause has more
// than a twentieth of a window; of what is told of a host, hosts are. A feature has
// drifted when its index is large (0.25, the usual rule), larger than chance
// explains at 1 % over all features, and twice what it usually is here: some
// features breathe with the day. Of a flow's surroundings only the suspicious side
// counts (feature.Suspect): to have grown familiar is no drift.
//
// Scores are followed by the test of Page and Hinkley (Page 1954; Hinkley 1971; as
// used for streams by Gama et al. 2014) on -ln p of flows.
//
// Everything is bounded: cells, one window of cell numbers, two sums. Nothing here
// knows an address or a clock; a host is a number that the caller chose.
package drift
