package feature

import "github.com/hedgerow-mesh/hedgerow/dataplane/flow"

// around is what all features of a flow's surroundings are made of.
const around = flow.LackAddrs | flow.LackClock

// split is what all counts of a direction's packets are made of.
const split = flow.LackSplit | flow.LackPackets

// needs says of each feature which fields of a record it is made of. A record
// whose source could not give one of them has no such feature: it is absent, as
// the schema says of what cannot be known, and never a zero that looks like a
// measurement. Only that a flow has ended is known of every source.
var needs = [Dim]flow.Lack{
	iPackets:         flow.LackPackets,
	iPacketsOut:      split,
	iPacketsIn:       split,
	iPayloadOut:      flow.LackPayload,
	iPayloadIn:       flow.LackPayload,
	iUploadShare:     flow.LackPayload,
	iPacketShare:     split,
	iSizeMeanOut:     split | flow.LackBytes,
	iSizeMeanIn:      split | flow.LackBytes,
	iSizeDevOut:      split | flow.LackBytes | flow.LackSizeSpread,
	iSizeDevIn:       split | flow.LackBytes | flow.LackSizeSpread,
	iSizeMaxOut:      split | flow.LackSizeMax,
	iSizeMaxIn:       split | flow.LackSizeMax,
	iDuration:        flow.LackSpan,
	iRateOut:         flow.LackSpan | flow.LackPayload,
	iRateIn:          flow.LackSpan | flow.LackPayload,
	iGapDevOut:       split | flow.LackGapSpread,
	iGapMaxOut:       split | flow.LackGapMax,
	iFirst1:          flow.LackFirsts,
	iFirst2:          flow.LackFirsts,
	iFirst3:          flow.LackFirsts,
	iFirst4:          flow.LackFirsts,
	iFirst5:          flow.LackFirsts,
	iFirst6:          flow.LackFirsts,
	iGap1:            flow.LackFirsts,
	iGap2:            flow.LackFirsts,
	iGap3:            flow.LackFirsts,
	iGap4:            flow.LackFirsts,
	iSyn:             flow.LackSYN | flow.LackProto,
	iReset:           flow.LackFlags | flow.LackProto,
	iFin:             flow.LackFlags | flow.LackProto,
	iPushShare:       flow.LackPSH | flow.LackPackets | flow.LackProto,
	iRetransShare:    flow.LackRetrans | flow.LackPackets | flow.LackProto,
	iAnswered:        split,
	iProvenInit:      flow.LackProof | flow.LackProto,
	iProvenResp:      flow.LackProof | flow.LackProto,
	iRTT:             flow.LackRTT | flow.LackProto,
	iTLS:             flow.LackHint,
	iSSH:             flow.LackHint,
	iHTTP:            flow.LackHint,
	iWindow:          split | flow.LackWindow | flow.LackProto,
	iTTL:             split | flow.LackTTL,
	iTCP:             flow.LackProto,
	iUDP:             flow.LackProto,
	iICMP:            flow.LackProto,
	iOutbound:        flow.LackAddrs,
	iInbound:         flow.LackAddrs,
	iPortLow:         flow.LackPort,
	iPortHigh:        flow.LackPort,
	iSNI:             flow.LackHello,
	iALPN:            flow.LackHello,
	iALPNWeb:         flow.LackHello,
	iTLSVersion:      flow.LackHello,
	iCiphers:         flow.LackHello,
	iExtensions:      flow.LackHello,
	iECH:             flow.LackHello,
	iHostFlows:       around,
	iHostPeers:       around,
	iHostPorts:       around | flow.LackPort | flow.LackProto,
	iHostFailed:      around | split | flow.LackPayload | flow.LackFlags | flow.LackProto,
	iPairFlows:       around | flow.LackPort | flow.LackProto,
	iPairAlike:       around | flow.LackPort | flow.LackPayload | flow.LackSpan | flow.LackProto,
	iContactDev:      around,
	iContactGap:      around,
	iPeerOut:         around | flow.LackPayload,
	iStrangerOut:     around | flow.LackPayload,
	iStrangerFlows:   around | flow.LackPort | flow.LackProto,
	iNovelPort:       around | flow.LackPort | flow.LackProto,
	iNovelPeer:       around,
	iNovelService:    around | flow.LackPort | flow.LackProto,
	iNovelClient:     around | flow.LackHello,
	iNovelClientHere: around | flow.LackHello,
	iNovelProtocol:   around | flow.LackPort | flow.LackProto | flow.LackHint,
}

// Given are the features that a source lacking l can give.
func Given(l flow.Lack) (mask Mask) {
	for i, n := range needs {
		if n&l == 0 {
			mask.Add(i)
		}
	}
	return mask
}

// withhold makes absent what the record's source could not give.
func (v *Vector) withhold(l flow.Lack) {
	if l == 0 {
		return
	}
	v.Has = v.Has.And(Given(l))
	for i := range v.X {
		if !v.Known(i) {
			v.X[i] = 0
		}
	}
}
