package feature

import (
	"math"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// FromRecord fills dst with the features of the flow itself; the context's
// are absent, and so is what the record's source could not give. It allocates
// nothing.
func FromRecord(dst *Vector, r *flow.Record) {
	*dst = Vector{}
	volume(dst, r)
	sizes(dst, r)
	timing(dst, r)
	firsts(dst, r)
	handshake(dst, r)
	kind(dst, r)
	greeting(dst, r.Hello)
	dst.withhold(r.Lacks)
}

func volume(v *Vector, r *flow.Record) {
	out, in := &r.Dir[0], &r.Dir[1]
	v.set(iPackets, float64(r.Packets()))
	v.set(iPacketsOut, float64(out.Packets))
	v.set(iPacketsIn, float64(in.Packets))
	v.set(iPayloadOut, float64(out.Payload))
	v.set(iPayloadIn, float64(in.Payload))
	if sum := float64(out.Payload) + float64(in.Payload); sum > 0 {
		v.set(iUploadShare, float64(out.Payload)/sum)
	}
	if n := float64(out.Packets) + float64(in.Packets); n > 0 {
		v.set(iPacketShare, float64(out.Packets)/n)
	}
	v.setFlag(iAnswered, in.Packets > 0)
	v.setFlag(iEnded, r.End != flow.Open)
}

func sizes(v *Vector, r *flow.Record) {
	one := func(d *flow.Dir, mean, dev, largest int) {
		if d.Packets == 0 {
			return
		}
		m, sd := moments(float64(d.Packets), float64(d.Bytes), float64(d.SizeSq))
		v.set(mean, m)
		v.set(largest, float64(d.SizeMax))
		if d.Packets > 1 {
			v.set(dev, sd)
		}
	}
	one(&r.Dir[0], iSizeMeanOut, iSizeDevOut, iSizeMaxOut)
	one(&r.Dir[1], iSizeMeanIn, iSizeDevIn, iSizeMaxIn)
}

// moments gives mean and deviation of n values from their sum and sum of squares.
func moments(n, sum, sq float64) (mean, dev float64) {
	mean = sum / n
	return mean, math.Sqrt(math.Max(0, sq/n-mean*mean))
}

func timing(v *Vector, r *flow.Record) {
	d := r.Duration().Seconds()
	v.set(iDuration, d)
	if d >= 0.001 {
		v.set(iRateOut, float64(r.Dir[0].Payload)/d)
		v.set(iRateIn, float64(r.Dir[1].Payload)/d)
	}
	out := &r.Dir[0]
	if out.Packets < 2 {
		return
	}
	v.set(iGapMaxOut, float64(out.GapMax)/1e6)
	gaps := float64(out.Packets - 1)
	span := float64(out.Last-out.First) / 1e3
	if out.Packets > 2 && span > 0 {
		mean, dev := moments(gaps, span, float64(out.GapSq))
		v.set(iGapDevOut, dev/mean)
	}
}

func firsts(v *Vector, r *flow.Record) {
	n := min(int(r.NFirst), flow.First)
	for i := range min(n, iFirst6-iFirst1+1) {
		v.set(iFirst1+i, float64(r.Sizes[i]))
	}
	for i := range min(n, iGap4-iGap1+1) {
		v.set(iGap1+i, float64(r.Gaps[i])/1e6)
	}
}

func handshake(v *Vector, r *flow.Record) {
	if r.Key.Proto != flow.TCP {
		return
	}
	out, in := &r.Dir[0], &r.Dir[1]
	v.set(iSyn, float64(out.SYN)+float64(in.SYN))
	v.setFlag(iReset, out.RST+in.RST > 0)
	v.setFlag(iFin, out.FIN+in.FIN > 0)
	if n := float64(r.Packets()); n > 0 {
		v.set(iPushShare, (float64(out.PSH)+float64(in.PSH))/n)
		v.set(iRetransShare, (float64(out.Retrans)+float64(in.Retrans))/n)
	}
	v.setFlag(iProvenInit, r.Validated[0])
	v.setFlag(iProvenResp, r.Validated[1])
	if r.SynAckUS > 0 {
		v.set(iRTT, float64(r.SynAckUS+r.AckUS)/1e6)
	}
	v.set(iWindow, float64(out.Window))
}

func kind(v *Vector, r *flow.Record) {
	if spoke(r) {
		v.setFlag(iTLS, r.Hint == flow.HintTLS)
		v.setFlag(iSSH, r.Hint == flow.HintSSH)
		v.setFlag(iHTTP, r.Hint == flow.HintHTTP)
	}
	p := r.Key.Proto
	v.setFlag(iTCP, p == flow.TCP)
	v.setFlag(iUDP, p == flow.UDP)
	v.setFlag(iICMP, p == flow.ICMP || p == flow.ICMPv6)
	v.setFlag(iOutbound, r.InitInside && !r.RespInside)
	v.setFlag(iInbound, r.RespInside && !r.InitInside)
	v.setFlag(iPortLow, port(r) > 0 && port(r) < 1024)
	v.setFlag(iPortHigh, port(r) > 32767)
	if r.Dir[0].Packets > 0 {
		v.set(iTTL, hops(r.Dir[0].TTL))
	}
}

// greeting fills what a TLS client said as the flow began, as far as that is known.
func greeting(v *Vector, h *flow.Hello) {
	if h == nil {
		return
	}
	if h.Told&flow.ToldName != 0 {
		v.setFlag(iSNI, h.Named)
	}
	if h.Told&flow.ToldALPN != 0 {
		v.setFlag(iALPN, h.Protocol != "")
		v.setFlag(iALPNWeb, web(h.Protocol))
	}
	if h.Told&flow.ToldVersion != 0 {
		v.set(iTLSVersion, float64(h.Version)-flow.SSL30)
	}
	if h.Told&flow.ToldCounts != 0 {
		v.set(iCiphers, float64(h.Ciphers))
		v.set(iExtensions, float64(h.Extensions))
	}
	if h.Told&flow.ToldECH != 0 {
		v.setFlag(iECH, h.ECH)
	}
}

// web says that an application protocol is a form of HTTP.
func web(alpn string) bool {
	switch alpn {
	case "http/1.0", "http/1.1", "h2", "h3":
		return true
	}
	return strings.HasPrefix(alpn, "h3-") // drafts
}

// spoke says that the flow carried payload. A source that gives the hint but no
// payload gives it for flows that did.
func spoke(r *flow.Record) bool {
	if r.Lacks&flow.LackFirsts == 0 {
		return r.NFirst > 0
	}
	return r.Lacks&flow.LackPayload != 0 || r.Dir[0].Payload+r.Dir[1].Payload > 0
}

// failed says that a finished flow got nothing: no answer at all, or a reset
// before any payload came back.
func failed(r *flow.Record) bool {
	in := &r.Dir[1]
	if in.Packets == 0 {
		return true
	}
	return r.Key.Proto == flow.TCP && in.Payload == 0 && in.RST > 0
}

// short says that a finished flow was a brief exchange with payload both ways.
func short(r *flow.Record) bool {
	return r.Dir[0].Payload > 0 && r.Dir[1].Payload > 0 && r.Duration() < 30*time.Second
}
