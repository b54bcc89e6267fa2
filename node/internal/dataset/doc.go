// Package dataset reads labelled tables of flows from files: NSL-KDD,
// UNSW-NB15, the Westermo flows, and any CSV by a small mapping.
//
// A cell that is not what its column holds is named by file, line and column.
// Such a row is left out and counted; a file in which more than a hundredth
// are, is refused, since then the mapping is wrong and not the cells. What is
// read is bounded in bytes, in rows, in the length of a line and in the number
// of distinct words, whatever the file says of itself.
//
// Addresses and absolute times never become features: a mapping that names no
// column as time or place has none, and what it ignores is not looked at.
package dataset
