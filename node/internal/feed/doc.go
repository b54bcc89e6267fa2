// Package feed turns other people's blocklists into a set that a packet path
// may enforce, without cutting off who must not be cut off.
//
// Read reads one list, of any of the usual forms, within bounds of bytes, line
// length and entries. Every line ends as an entry, or is counted under a Kind
// and told to the caller with its number: nothing is dropped silently. A Guard
// holds the networks that no feed may block: special-purpose ones, the site's
// own, the never-block list, and warning lists. Build puts the lists of all
// feeds through the guard and merges them: sorted, without duplicates, adjacent
// networks aggregated, every entry with the set of feeds that list it and the
// moment until which they do.
//
// The package does no input or output of its own and has no clock: readers and
// times are arguments. Package fetch beside it opens files and URLs.
package feed
