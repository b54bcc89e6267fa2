package flow

import "hash/fnv"

// Told says which parts of a Hello are known.
type Told uint8

// Parts of a Hello.
const (
	ToldVersion Told = 1 << iota // Version
	ToldCounts                   // Ciphers, Extensions
	ToldName                     // Named, Name
	ToldALPN                     // Protocol
	ToldECH                      // ECH
	ToldPrint                    // Print, and JA4 where the source tells that
)

// ToldAll is every part.
const ToldAll = ToldVersion | ToldCounts | ToldName | ToldALPN | ToldECH | ToldPrint

// TLS versions as they stand in a hello.
const (
	SSL30 = 0x0300
	TLS10 = 0x0301
	TLS11 = 0x0302
	TLS12 = 0x0303
	TLS13 = 0x0304
)

// Hello is what a TLS client said in the clear before anything was encrypted:
// the first message of a TLS session over TCP, or of one over QUIC. It is never
// written once a record has it, and may be shared by several records. What comes
// from another tool's log has some parts only: see Told.
type Hello struct {
	Told       Told
	QUIC       bool
	Named      bool   // the client named the server that it wants
	ECH        bool   // it sent an encrypted hello within, or what looks like one
	Version    uint16 // the highest that it offers
	Ciphers    uint16 // how many suites it offers, without GREASE (RFC 8701)
	Extensions uint16 // how many it sent, without GREASE
	Print      uint64 // hash of the fingerprint, for comparing; 0 unknown
	JA4        string // the fingerprint in its published form, "" unknown
	Name       string // the server's name as sent; it stays on this gateway
	Protocol   string // the first application protocol that it offers, "" none
}

// PrintOf is the hash of a fingerprint's text, never 0 but for "".
func PrintOf(text string) uint64 {
	if text == "" {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(text))
	return max(1, h.Sum64())
}

// VersionName is a TLS version in words, "" for what is none.
func VersionName(v uint16) string {
	switch v {
	case SSL30:
		return "SSL 3.0"
	case TLS10:
		return "TLS 1.0"
	case TLS11:
		return "TLS 1.1"
	case TLS12:
		return "TLS 1.2"
	case TLS13:
		return "TLS 1.3"
	}
	return ""
}
