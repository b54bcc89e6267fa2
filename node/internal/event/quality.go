package event

import "time"

// Quality is what became of a window of traffic that was to teach.
type Quality struct {
	Source     string       `json:"source"` // live, or the name of a log
	From       time.Time    `json:"from"`
	To         time.Time    `json:"to"`
	Verdict    string       `json:"verdict"` // good, changed, bad: a bad one trains nothing
	Why        string       `json:"why,omitempty"`
	Reports    int          `json:"reports"` // offered
	Kept       int          `json:"kept"`
	Invalid    int          `json:"invalid"`
	Duplicates int          `json:"duplicates"`
	ClockBack  int          `json:"clock_back"`
	ClockAhead int          `json:"clock_ahead"`
	TCPEnded   int          `json:"tcp_ended"`
	OneSided   int          `json:"one_sided"` // of tcp_ended
	Attacks    int          `json:"attacks"`
	Drifted    int          `json:"inputs_drifted"` // of inputs_compared
	Compared   int          `json:"inputs_compared"`
	Most       []InputDrift `json:"most_drifted,omitempty"` // at most five
}

// InputDrift is how one input of the model moved against its training.
type InputDrift struct {
	Feature string  `json:"feature"`
	PSI     float64 `json:"psi"`   // population stability index
	Limit   float64 `json:"limit"` // from which it is called a change
	Words   string  `json:"words"`
}
