package tabular

// Encoder turns rows into inputs of a network, learnt on one table and the same
// for every other: numbers as the signed logarithm in standard deviations, words
// as flags.
type Encoder struct{ net *netEncoder }

// FitEncoder learns the scale of a training table.
func FitEncoder(t *Table) *Encoder { return &Encoder{fitNet(t)} }

// Width is the number of inputs of one row.
func (e *Encoder) Width() int { return e.net.width }

// Apply encodes a table with the same columns, row after row.
func (e *Encoder) Apply(t *Table) []float32 { return e.net.apply(t) }
