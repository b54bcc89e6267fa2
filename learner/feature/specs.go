package feature

import "github.com/hedgerow-mesh/hedgerow/dataplane/flow"

// Reasons for absence that many features share.
const (
	always     = "never"
	noPayload  = "no payload yet"
	noReply    = "no packet from the responder"
	onePacket  = "one packet so far"
	notTCP     = "not TCP"
	cold       = "the context is younger than two settling times"
	fewContact = "fewer than four contacts seen"
	noHello    = "no TLS client's first message was read, over TCP or QUIC"
)

func lg(name, unit string, hi, grain float64, f form, absent, words, why string) spec {
	return spec{Feature: Feature{Name: name, Unit: unit, Hi: hi, Absent: absent, Why: why}, scale: logar, grain: grain, form: f, words: words}
}

func ln(name, unit string, lo, hi float64, f form, absent, words, why string) spec {
	return spec{Feature: Feature{Name: name, Unit: unit, Lo: lo, Hi: hi, Absent: absent, Why: why}, scale: linear, form: f, words: words}
}

func fl(name, absent, yes, no, why string) spec {
	return spec{Feature: Feature{Name: name, Unit: "yes/no", Hi: 1, Absent: absent, Why: why}, scale: flag, words: yes, not: no}
}

func nv(name, words, why string) spec {
	return spec{Feature: Feature{Name: name, Unit: "flows", Hi: 1000, Absent: cold, Why: why}, scale: novel, words: words}
}

// nh and np are as nv, of what is not known of every flow.
func nh(name, words, why string) spec {
	s := nv(name, words, why)
	s.Absent = noHello + "; or " + cold
	return s
}

func np(name, words, why string) spec {
	s := nv(name, words, why)
	s.Absent = notTCP + "; no payload yet; or " + cold
	return s
}

// vn is a TLS version: 0 is SSL 3.0, 4 is TLS 1.3.
func vn(name, absent, words, why string) spec {
	return spec{Feature: Feature{Name: name, Unit: "0: SSL 3.0, 1: TLS 1.0, ... 4: TLS 1.3", Hi: 4, Absent: absent, Why: why}, scale: linear, form: version, words: words}
}

func first(name, ordinal string) spec {
	return spec{
		Feature: Feature{Name: name, Unit: "bytes", Lo: -1500, Hi: 1500, Absent: "fewer payload packets so far",
			Why: "the first sizes are a protocol's handwriting; positive is from the initiator"},
		scale: signed, grain: 16, form: bytes, words: ordinal + " payload packet of %s",
	}
}

func gap(name, ordinal string) spec {
	return lg(name, "s", 60, 0.001, seconds, "fewer payload packets so far",
		ordinal+" payload packet after %s", "who thinks, a person or a program, and how far away")
}

// specs is the schema; its order is that of the indices. It is never written.
var specs = [Dim]spec{
	iPackets:      lg("packets", "packets", 1e6, 1, plain, always, "%s packets so far", "how far the flow is: all else is read in its light"),
	iPacketsOut:   lg("packets_out", "packets", 1e6, 1, plain, always, "sent %s packets", "amount from the initiator"),
	iPacketsIn:    lg("packets_in", "packets", 1e6, 1, plain, always, "got %s packets back", "amount from the responder"),
	iPayloadOut:   lg("payload_out", "bytes", 1e9, 64, bytes, always, "sent %s", "what the initiator said"),
	iPayloadIn:    lg("payload_in", "bytes", 1e9, 64, bytes, always, "received %s", "what the responder said"),
	iUploadShare:  ln("upload_share", "share", 0, 1, percent, noPayload, "%s of the payload went out", "leaks push, ordinary clients pull"),
	iPacketShare:  ln("packet_share", "share", 0, 1, percent, always, "%s of the packets came from the initiator", "one-sidedness"),
	iSizeMeanOut:  ln("size_mean_out", "bytes", 0, 1500, bytes, always, "packets out of %s on average", "typing, asking or pushing"),
	iSizeMeanIn:   ln("size_mean_in", "bytes", 0, 1500, bytes, noReply, "packets in of %s on average", "answering or serving"),
	iSizeDevOut:   ln("size_dev_out", "bytes", 0, 750, bytes, onePacket, "sizes out vary by %s", "machines repeat themselves"),
	iSizeDevIn:    ln("size_dev_in", "bytes", 0, 750, bytes, noReply, "sizes in vary by %s", "machines repeat themselves"),
	iSizeMaxOut:   ln("size_max_out", "bytes", 0, 1500, bytes, always, "largest packet out %s", "whether the initiator fills packets"),
	iSizeMaxIn:    ln("size_max_in", "bytes", 0, 1500, bytes, noReply, "largest packet in %s", "whether the responder fills packets"),
	iDuration:     lg("duration", "s", 86400, 0.001, seconds, always, "lasted %s so far", "length of the exchange"),
	iRateOut:      lg("rate_out", "bytes/s", 1e9, 64, perSecond, "shorter than a millisecond", "sent at %s", "a spurt is a rate, not a sum"),
	iRateIn:       lg("rate_in", "bytes/s", 1e9, 64, perSecond, "shorter than a millisecond", "received at %s", "a flood is a rate, not a sum"),
	iGapDevOut:    ln("gap_dev_out", "ratio", 0, 8, plain, "fewer than three packets out", "gaps between packets out vary %s times their mean", "regular timing is a machine's"),
	iGapMaxOut:    lg("gap_max_out", "s", 3600, 0.001, seconds, onePacket, "longest pause of the initiator %s", "sleeping between messages"),
	iFirst1:       first("first_size_1", "first"),
	iFirst2:       first("first_size_2", "second"),
	iFirst3:       first("first_size_3", "third"),
	iFirst4:       first("first_size_4", "fourth"),
	iFirst5:       first("first_size_5", "fifth"),
	iFirst6:       first("first_size_6", "sixth"),
	iGap1:         gap("first_gap_1", "first"),
	iGap2:         gap("first_gap_2", "second"),
	iGap3:         gap("first_gap_3", "third"),
	iGap4:         gap("first_gap_4", "fourth"),
	iSyn:          ln("syn", "packets", 0, 8, plain, notTCP, "%s SYN packets", "knocking again and again"),
	iReset:        fl("reset", notTCP, "was reset", "was not reset", "a closed port answers so"),
	iFin:          fl("fin", notTCP, "a side said it is done", "no side said it is done", "orderly ends"),
	iPushShare:    ln("push_share", "share", 0, 1, percent, notTCP, "%s of the packets were pushed", "small messages or a stream"),
	iRetransShare: ln("retrans_share", "share", 0, 1, percent, notTCP, "%s of the packets were sent again", "a lossy or lying path"),
	iAnswered:     fl("answered", always, "the responder answered", "the responder never answered", "a probe meets silence"),
	iProvenInit:   fl("proven_initiator", notTCP, "the initiator proved its address", "the initiator's address is unproven", "a forged sender cannot"),
	iProvenResp:   fl("proven_responder", notTCP, "the responder proved its address", "the responder's address is unproven", "a service that is there"),
	iRTT:          lg("handshake_rtt", "s", 10, 0.0001, seconds, "no handshake seen", "answered its first packet after %s", "near or far"),
	iTLS:          fl("tls", noPayload, "looks like TLS", "does not look like TLS", "encrypted sessions"),
	iSSH:          fl("ssh", noPayload, "looks like SSH", "does not look like SSH", "logins"),
	iHTTP:         fl("http", noPayload, "looks like HTTP", "does not look like HTTP", "plain web"),
	iWindow:       lg("window", "bytes", 65535, 256, bytes, notTCP, "first window of %s", "handwriting of a network stack"),
	iTTL:          ln("hops", "hops", 0, 64, plain, always, "initiator about %s hops away", "distance, from the rest of the time to live"),
	iTCP:          fl("tcp", always, "is TCP", "is not TCP", "transport"),
	iUDP:          fl("udp", always, "is UDP", "is not UDP", "transport"),
	iICMP:         fl("icmp", always, "is ICMP", "is not ICMP", "transport"),
	iOutbound:     fl("outbound", always, "goes from inside to outside", "does not go from inside to outside", "who called whom"),
	iInbound:      fl("inbound", always, "comes from outside", "does not come from outside", "who called whom"),
	iPortLow:      fl("port_well_known", always, "to a well-known port", "not to a well-known port", "class of the service, not the service"),
	iPortHigh:     fl("port_ephemeral", always, "to a port above 32767", "to a port of a service", "class of the service, not the service"),
	iEnded:        fl("ended", always, "has ended", "is still open", "whether this is all of it"),
	iSNI:          fl("tls_server_named", noHello, "its TLS client names the server", "its TLS client names no server", "programs that call an address rather than a name"),
	iALPN:         fl("tls_alpn", noHello, "its TLS client says what it will speak", "its TLS client does not say what it will speak", "browsers and mailers say it, simple programs do not"),
	iALPNWeb:      fl("tls_alpn_web", noHello, "its TLS client offers to speak HTTP", "its TLS client does not offer to speak HTTP", "the web, or something else in its clothes"),
	iTLSVersion:   vn("tls_version", noHello, "its TLS client offers %s at most", "old and home-made clients lag behind"),
	iCiphers:      ln("tls_ciphers", "suites", 0, 64, plain, noHello, "its TLS client offers %s cipher suites", "a library's handwriting; browsers offer few"),
	iExtensions:   ln("tls_extensions", "extensions", 0, 32, plain, noHello, "its TLS client sends %s extensions", "a library's handwriting; browsers send many"),
	iECH:          fl("tls_ech", noHello, "its TLS client hides the server's name, or pretends to", "its TLS client does not hide the server's name", "a name that is encrypted (ECH) says nothing of the server"),
	iHostFlows:    lg("host_flows", "flows/min", 1e4, 1, plain, always, "its initiator opens %s flows a minute", "bustle of one host"),
	iHostPeers:    lg("host_peers", "addresses/min", 1e4, 1, plain, always, "its initiator tries %s addresses a minute", "sweeping a network"),
	iHostPorts:    lg("host_ports", "ports/min", 1e4, 1, plain, always, "its initiator tries %s ports a minute", "scanning a host"),
	iHostFailed:   lg("host_failed", "flows/min", 1e4, 1, plain, always, "%s flows of its initiator fail a minute", "guessing what is there"),
	iPairFlows:    lg("pair_flows", "flows/min", 1e4, 1, plain, always, "%s sessions a minute from this host to this service", "trying again and again"),
	iPairAlike:    ln("pair_size_dev", "ratio", 0, 2, plain, "fewer than three sessions to this service ended", "their sizes differ %s times their mean", "guesses look alike, work does not"),
	iContactDev:   ln("contact_dev", "ratio", 0, 2, plain, fewContact, "time between contacts with this peer varies %s times its mean", "beacons keep time"),
	iContactGap:   lg("contact_gap", "s", 86400, 0.01, seconds, fewContact, "contacts this peer every %s", "beacons come back"),
	iPeerOut:      lg("peer_out", "bytes/min", 1e11, 64, bytes, always, "%s a minute go to this peer", "a leak in small doses"),
	// The two that only together make a leak or a siege: how much, and with whom.
	// Each is divided by one more than the times that the site met the peer.
	iStrangerOut:   lg("stranger_out", "bytes/min", 1e9, 64, bytes, cold, "%s a minute go out for each time that this site met the peer", "a leak to somebody new"),
	iStrangerFlows: lg("stranger_flows", "flows/min", 1e4, 1, plain, cold, "%s sessions a minute for each time that this site met the peer", "somebody new who comes again and again"),
	iNovelPort:     nv("known_port", "this host used the port %s times before", "a host that does what it never did"),
	iNovelPeer:     nv("known_peer", "this site met the peer %s times before", "a stranger"),
	iNovelService:  nv("known_service", "this site used the service %s times before", "a service that nobody here uses"),
	// Whose client it is: the inside host's, or of those who call it.
	iNovelClient:     nh("known_client", "a TLS client that this host used %s times before", "a program that is new on this host"),
	iNovelClientHere: nh("known_client_here", "a TLS client that this site used %s times before", "a program that nobody here uses"),
	iNovelProtocol:   np("known_protocol", "this host spoke this protocol on this port %s times before", "a port that is used for something else"),
}

// hops guesses the distance from a received TTL: senders start at 32, 64, 128 or 255.
func hops(ttl uint8) float64 {
	for _, start := range [...]uint8{32, 64, 128} {
		if ttl <= start {
			return float64(start - ttl)
		}
	}
	return float64(255 - ttl)
}

// port is the number that names the responder's service.
func port(r *flow.Record) uint16 { return r.Responder().Port() }
