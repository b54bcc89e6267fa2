package wire

import (
	"math"
	"time"
)

func (p *Indicator) check() error {
	if _, err := ParseValue(p.Type, p.Value); err != nil {
		return err
	}
	if !unit(p.Score) || !unit(p.Confidence) {
		return Refuse(BadField, "score and confidence: %g, %g: expected 0 to 1", p.Score, p.Confidence)
	}
	switch p.Evidence {
	case Validated, Spoofable, Operator:
	default:
		return Refuse(BadField, "evidence: %.20q: expected validated, spoofable or operator", p.Evidence)
	}
	switch p.TLP {
	case TLPClear, TLPGreen, TLPAmber, TLPAmberStrict:
	default:
		return Refuse(BadField, "tlp: %.20q: expected clear, green, amber or amber+strict; red is for named recipients and is not shared", p.TLP)
	}
	switch p.Stance {
	case Claims, Sights, Disputes:
	default:
		return Refuse(BadField, "stance: %.20q: expected none, sighting or dispute", string(p.Stance))
	}
	if len(p.Sentence) > 4*MaxSentence || Sanitise(p.Sentence) != p.Sentence {
		return Refuse(BadField, "sentence: expected at most %d printable characters without private addresses", MaxSentence)
	}
	return p.checkTimes()
}

func (p *Indicator) checkTimes() error {
	if p.First.IsZero() || p.Last.Before(p.First) {
		return Refuse(BadField, "first and last: expected first at or before last")
	}
	if !p.Expires.After(p.Last) {
		return Refuse(BadField, "expires: expected a time after last")
	}
	if life := p.Expires.Sub(p.First); life > MaxLife {
		return Refuse(TooLong, "expires: %s after first: expected at most %s", life.Round(time.Second), MaxLife)
	}
	return nil
}

func unit(x float64) bool { return x >= 0 && x <= 1 } // false for NaN

func (p *Withdrawal) check() error { return checkID(p.ID) }

func checkID(id string) error {
	if len(id) != 32 {
		return Refuse(BadField, "id: expected 32 hexadecimal digits")
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Refuse(BadField, "id: expected 32 hexadecimal digits")
		}
	}
	return nil
}

func checkRound(r uint64) error {
	if r == 0 || r > MaxRound {
		return Refuse(BadField, "round: %d: expected 1 to %d", r, uint64(MaxRound))
	}
	return nil
}

func (p *Begin) check() error { return checkRound(p.Round) }

func (p *Offer) check() error {
	if p.Size == 0 || p.Size > MaxDelta {
		return Refuse(Oversized, "size: %d: expected 1 to %d", p.Size, MaxDelta)
	}
	return checkRound(p.Round)
}

func (p *Delta) check() error {
	if err := checkRound(p.Round); err != nil {
		return err
	}
	if err := CheckSchema(p.Schema); err != nil {
		return err
	}
	return CheckParams(p.Params)
}

// CheckSchema refuses what is not a short plain name.
func CheckSchema(s string) error {
	if s == "" || len(s) > MaxSchema {
		return Refuse(BadField, "schema: %d bytes: expected 1 to %d", len(s), MaxSchema)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return Refuse(BadField, "schema: expected printable ASCII without spaces")
		}
	}
	return nil
}

// CheckParams refuses vectors that are empty, too long, not finite, or whose
// norm passes MaxNorm.
func CheckParams(v []float32) error {
	if len(v) == 0 || len(v) > MaxParams {
		return Refuse(WrongLength, "params: %d: expected 1 to %d", len(v), MaxParams)
	}
	var sq float64
	for i, x := range v {
		f := float64(x)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return Refuse(NotFinite, "params: number %d is %g", i, f)
		}
		sq += float64(f * f) // the conversion keeps the sum equal on machines that fuse
	}
	if norm := math.Sqrt(sq); norm > MaxNorm {
		return Refuse(NormTooLarge, "params: norm %.3g: expected at most %g", norm, float64(MaxNorm))
	}
	return nil
}

func (p *List) check() error {
	if len(p.Deltas) == 0 || len(p.Deltas) > MaxSite {
		return Refuse(WrongLength, "deltas: %d: expected 1 to %d", len(p.Deltas), MaxSite)
	}
	for i := 1; i < len(p.Deltas); i++ {
		if string(p.Deltas[i-1][:]) >= string(p.Deltas[i][:]) {
			return Refuse(BadField, "deltas: expected ascending hashes, each once")
		}
	}
	return checkRound(p.Round)
}

func (p *State) check() error {
	if p.Round > MaxRound {
		return Refuse(BadField, "round: %d: expected at most %d", p.Round, uint64(MaxRound))
	}
	return nil
}
