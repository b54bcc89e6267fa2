// Package trees learns classes of rows of numbers: by boosting oblivious
// decision trees, and, as the simple reference beside that, by a random forest.
//
// An oblivious tree asks the same question of all nodes of a level, so that a
// tree of depth d is d comparisons and a table of 2^d values: no jump depends
// on data, which is what lets such a model be scored within the kernel, and it
// overfits less than a free tree of as many leaves (Prokhorenkova et al. 2018,
// CatBoost). Boosting fits each tree to the first and second derivatives of
// the loss (Friedman 2001; Chen and Guestrin 2016), which are summed in
// histograms over at most 255 quantile bins of each column (Ke et al. 2017); of
// two siblings only the smaller is summed, the other is the difference.
//
// Columns are numbers; NaN means absent and answers every question with no.
// Categories become numbers before they come here.
//
// Training is deterministic: equal rows, options and seed give equal bits,
// whatever the number of workers, since each histogram is summed by one worker
// in the order of the rows. A Model is plain slices, is immutable once made,
// and may be used by any number of goroutines. Contributions says exactly how
// much of a score each column made.
package trees
