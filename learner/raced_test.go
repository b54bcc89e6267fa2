//go:build race

package learner_test

// raced says that the race detector makes all this ten times slower.
const raced = true
