//go:build race

package node

// raced says that the race detector makes training ten times slower.
const raced = true
