package feature

import (
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Version of the schema. It grows when a feature changes its place, meaning or
// scale. 2 added what TLS clients say, and how well the client and the protocol
// are known.
const Version = 2

// Dim is the number of features.
const Dim = 74

// ContextDim is how many of them tell of a flow's context; they come last.
const ContextDim = Dim - iHostFlows

// Vector is one flow, as far as it got.
type Vector struct {
	// X holds every feature in its fixed scale; an absent one is 0.
	X [Dim]float32
	// Has are the features that are known.
	Has Mask
}

// Feature describes one number of the schema.
type Feature struct {
	Name   string
	Unit   string  // of the natural value
	Lo, Hi float64 // natural range; values beyond are clamped
	Absent string  // when the feature is absent, of a source that lacks nothing
	Why    string  // what it tells
	// Needs are the fields of a record that it is made of: it is absent, too,
	// when the record's source could not give one of them.
	Needs flow.Lack
}

// Indices into Vector.X. Their order is the schema: changing it changes Version.
const (
	iPackets = iota
	iPacketsOut
	iPacketsIn
	iPayloadOut
	iPayloadIn
	iUploadShare
	iPacketShare
	iSizeMeanOut
	iSizeMeanIn
	iSizeDevOut
	iSizeDevIn
	iSizeMaxOut
	iSizeMaxIn
	iDuration
	iRateOut
	iRateIn
	iGapDevOut
	iGapMaxOut
	iFirst1
	iFirst2
	iFirst3
	iFirst4
	iFirst5
	iFirst6
	iGap1
	iGap2
	iGap3
	iGap4
	iSyn
	iReset
	iFin
	iPushShare
	iRetransShare
	iAnswered
	iProvenInit
	iProvenResp
	iRTT
	iTLS
	iSSH
	iHTTP
	iWindow
	iTTL
	iTCP
	iUDP
	iICMP
	iOutbound
	iInbound
	iPortLow
	iPortHigh
	iEnded
	iSNI
	iALPN
	iALPNWeb
	iTLSVersion
	iCiphers
	iExtensions
	iECH
	iHostFlows
	iHostPeers
	iHostPorts
	iHostFailed
	iPairFlows
	iPairAlike
	iContactDev
	iContactGap
	iPeerOut
	iStrangerOut
	iStrangerFlows
	iNovelPort
	iNovelPeer
	iNovelService
	iNovelClient
	iNovelClientHere
	iNovelProtocol
	count
)

var _ = [1]struct{}{}[count-Dim] // the indices fill the vector exactly

// A scale is how a natural value becomes a number of about [0, 1].
type scale uint8

const (
	flag   scale = iota // 0 or 1
	linear              // (v-lo) / (hi-lo)
	logar               // log(1+v/grain) / log(1+hi/grain)
	signed              // the same with the sign kept
	novel               // 1 - log(1+v)/log(1+hi): 1 is never seen
)

// A form is how a number is said.
type form uint8

const (
	plain form = iota
	bytes
	perSecond
	seconds
	percent
	version
)

type spec struct {
	Feature
	scale scale
	grain float64
	form  form
	words string // with %s for the number; of a flag: when set
	not   string // of a flag: when clear
}

// Schema lists the features in the order of Vector.X.
func Schema() []Feature {
	out := make([]Feature, Dim)
	for i := range out {
		out[i] = specs[i].Feature
		out[i].Needs = needs[i]
	}
	return out
}

// Name is the name of feature i, "" when there is none.
func Name(i int) string {
	if i < 0 || i >= Dim {
		return ""
	}
	return specs[i].Name
}

// Index is the place of a named feature, -1 when there is none.
func Index(name string) int {
	for i := range specs {
		if specs[i].Name == name {
			return i
		}
	}
	return -1
}

// Suspect says which side of the expected makes feature i suspicious: 1 above
// (many failures, a stranger), -1 below (contacts too regular, sessions too
// alike), 0 either. Only context features have a side: that a host does less
// than usual is no cause for alarm.
func Suspect(i int) int {
	switch i {
	case iHostFlows, iHostPeers, iHostPorts, iHostFailed, iPairFlows, iPeerOut, iStrangerOut, iStrangerFlows, iNovelPort, iNovelPeer, iNovelService,
		iNovelClient, iNovelClientHere, iNovelProtocol:
		return 1
	case iPairAlike, iContactDev, iContactGap:
		return -1
	}
	return 0
}

// IsContext says whether feature i tells of the flow's surroundings.
func IsContext(i int) bool { return i >= iHostFlows && i < Dim }

// IsFlag says whether feature i is either 0 or 1.
func IsFlag(i int) bool { return i >= 0 && i < Dim && specs[i].scale == flag }

// Known says whether feature i of the vector is present.
func (v *Vector) Known(i int) bool { return v.Has.Has(i) }

// Value is feature i in its natural unit, by inverting its scale; NaN when absent.
func (v *Vector) Value(i int) float64 {
	if i < 0 || i >= Dim || !v.Known(i) {
		return math.NaN()
	}
	return Natural(i, v.X[i])
}

// set stores a natural value and marks it present.
func (v *Vector) set(i int, natural float64) {
	v.X[i] = Scaled(i, natural)
	v.Has.Add(i)
}

// setFlag stores a truth.
func (v *Vector) setFlag(i int, b bool) {
	if b {
		v.X[i] = 1
	}
	v.Has.Add(i)
}

// Scaled brings a natural value of feature i into its fixed scale. A value
// beyond the schema's range is clamped; NaN counts as the lower end.
func Scaled(i int, natural float64) float32 {
	s := &specs[i]
	if !(natural > s.Lo) { // also NaN
		natural = s.Lo
	}
	natural = math.Min(natural, s.Hi)
	switch s.scale {
	case logar:
		return float32(math.Log1p(natural/s.grain) / math.Log1p(s.Hi/s.grain))
	case signed:
		x := math.Log1p(math.Abs(natural)/s.grain) / math.Log1p(s.Hi/s.grain)
		return float32(math.Copysign(x, natural))
	case novel:
		return float32(1 / (1 + natural))
	}
	return float32((natural - s.Lo) / (s.Hi - s.Lo))
}

// Natural inverts Scaled.
func Natural(i int, x float32) float64 {
	s := &specs[i]
	f := float64(x)
	switch s.scale {
	case logar:
		return s.grain * math.Expm1(f*math.Log1p(s.Hi/s.grain))
	case signed:
		return math.Copysign(s.grain*math.Expm1(math.Abs(f)*math.Log1p(s.Hi/s.grain)), f)
	case novel:
		return min(s.Hi, 1/max(f, 1e-9)-1)
	}
	return s.Lo + f*(s.Hi-s.Lo)
}

// Valid says whether the vector could come from this schema: every number is
// finite and in [-1, 1], and what is absent is 0.
func (v *Vector) Valid() error {
	for i, x := range v.X {
		if !(x >= -1 && x <= 1) {
			return fmt.Errorf("feature %s: %v: expected a number in [-1, 1]", specs[i].Name, x)
		}
		if x != 0 && !v.Known(i) {
			return fmt.Errorf("feature %s: absent but not 0", specs[i].Name)
		}
	}
	return nil
}
