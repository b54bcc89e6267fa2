package flow

import "strings"

// Lack names groups of a Record's fields that its source could not give. A plane
// of ours gives all of them: its records lack nothing, which is the zero value.
// A record that was made from another tool's log says with it which zeros are
// not counts. What a lacking group held must not be read.
type Lack uint32

// Groups of fields. The comment says which fields of Record or Dir they cover.
const (
	LackAddrs      Lack = 1 << iota // addresses in Key, and thus InitInside and RespInside
	LackPort                        // the responder's port in Key
	LackClock                       // when: Start and Last are a length, not a time
	LackSpan                        // how long: Last - Start
	LackProto                       // the protocol in Key
	LackPackets                     // Dir.Packets
	LackSplit                       // Packets of each direction; Dir[0] holds both
	LackBytes                       // Dir.Bytes
	LackPayload                     // Dir.Payload
	LackSizeSpread                  // Dir.SizeSq
	LackSizeMax                     // Dir.SizeMax and SizeMin
	LackGapSpread                   // Dir.GapSq
	LackGapMax                      // Dir.GapMax
	LackFirsts                      // NFirst, Sizes, Gaps
	LackHint                        // Hint
	LackHello                       // Hello
	LackFlags                       // whether a FIN or RST was seen: Dir.Flags, zero or not of FIN and RST
	LackSYN                         // Dir.SYN
	LackPSH                         // Dir.PSH
	LackRetrans                     // Dir.Retrans
	LackProof                       // Validated
	LackRTT                         // SynAckUS, AckUS
	LackWindow                      // Dir.Window
	LackTTL                         // Dir.TTL
	lackEnd
)

// LackAll is every group.
const LackAll = lackEnd - 1

var lackNames = [...]string{
	"addresses", "port", "clock", "span", "protocol", "packets", "packets by direction", "bytes", "payload", "size spread", "size maximum",
	"gap spread", "gap maximum", "first packets", "protocol hint", "client hello", "fin and rst", "syn count", "push count",
	"retransmissions", "proof of address", "handshake time", "window", "time to live",
}

// String lists the groups, "nothing" when none lacks.
func (l Lack) String() string {
	var out []string
	for i, n := range lackNames {
		if l>>i&1 == 1 {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}
