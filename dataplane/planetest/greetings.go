package planetest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// recorder is a connection on which nobody answers.
type recorder struct {
	net.Conn
	said []byte
}

func (r *recorder) Write(b []byte) (int, error) {
	r.said = append(r.said, b...)
	return len(b), nil
}

func (r *recorder) Read([]byte) (int, error) { return 0, io.EOF }
func (r *recorder) Close() error             { return nil }

// ClientHello is what a client of crypto/tls says first, with the header of its
// record: the real bytes, of a handshake that nobody answers.
func ClientHello(conf *tls.Config) []byte {
	var c recorder
	_ = tls.Client(&c, conf).Handshake() // it ends when nobody answers
	return c.said
}

// ClientHelloQUIC is the handshake message with which a QUIC client begins.
func ClientHelloQUIC(conf *tls.Config) ([]byte, error) {
	q := tls.QUICClient(&tls.QUICConfig{TLSConfig: conf})
	q.SetTransportParameters([]byte{1, 4, 0x80, 0, 0x75, 0x30}) // an idle time of 30 s
	if err := q.Start(context.Background()); err != nil {
		return nil, fmt.Errorf("quic client: %w", err)
	}
	defer q.Close()
	var said []byte
	for e := q.NextEvent(); e.Kind != tls.QUICNoEvent; e = q.NextEvent() {
		if e.Kind == tls.QUICWriteData {
			said = append(said, e.Data...)
		}
	}
	return said, nil
}

// Initial is a client's Initial packet before its protection: RFC 9000, section
// 17.2.2, or of version 2 RFC 9369.
type Initial struct {
	V2     bool
	ID     []byte // the connection ID that the client chose
	Keys   []byte // the one that the keys follow from; nil is ID
	Token  []byte
	Number uint32
	Frames []byte
	Size   int // the payload is padded up to a packet of so many bytes
}

// CryptoFrame is a piece of the handshake at a place of it.
func CryptoFrame(at int, piece []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{6}, uint32(at)|0x80000000)
	b = binary.BigEndian.AppendUint16(b, uint16(len(piece))|0x4000)
	return append(b, piece...)
}

var (
	saltV1 = []byte("\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a")
	saltV2 = []byte("\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9")
)

// InitialKeys are the client's: to encrypt, its nonce, and to hide the header.
func InitialKeys(id []byte, v2 bool) (key, iv, hp []byte, err error) {
	salt, prefix := saltV1, "quic "
	if v2 {
		salt, prefix = saltV2, "quicv2 "
	}
	secret, err := hkdf.Extract(sha256.New, id, salt)
	expand := func(label string, n int) []byte {
		if err != nil {
			return nil
		}
		var out []byte
		out, err = hkdf.Expand(sha256.New, secret, fmt.Sprintf("\x00%c%ctls13 %s\x00", n, len(label)+6, label), n)
		return out
	}
	secret = expand("client in", 32)
	return expand(prefix+"key", 16), expand(prefix+"iv", 12), expand(prefix+"hp", 16), err
}

// Seal protects the packet (RFC 9001, section 5).
func (p Initial) Seal() ([]byte, error) {
	from := p.Keys
	if from == nil {
		from = p.ID
	}
	key, iv, hp, err := InitialKeys(from, p.V2)
	if err != nil {
		return nil, fmt.Errorf("initial packet: %w", err)
	}
	head := []byte{0xc3, 0, 0, 0, 1}
	if p.V2 {
		head = []byte{0xd3, 0x6b, 0x33, 0x43, 0xcf}
	}
	head = append(append(head, byte(len(p.ID))), p.ID...)
	head = append(head, 0, byte(len(p.Token)))
	head = append(head, p.Token...)
	frames := p.Frames
	if pad := p.Size - len(head) - 2 - 4 - len(frames) - 16; pad > 0 {
		frames = append(append([]byte(nil), frames...), make([]byte, pad)...)
	}
	head = binary.BigEndian.AppendUint16(head, uint16(4+len(frames)+16)|0x4000)
	at := len(head)
	head = binary.BigEndian.AppendUint32(head, p.Number)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("initial packet: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("initial packet: %w", err)
	}
	nonce := append([]byte(nil), iv...)
	for i, b := range head[at:] {
		nonce[8+i] ^= b
	}
	out := aead.Seal(append([]byte(nil), head...), nonce, frames, head)
	mask, err := aes.NewCipher(hp)
	if err != nil {
		return nil, fmt.Errorf("initial packet: %w", err)
	}
	var m [16]byte
	mask.Encrypt(m[:], out[at+4:at+20])
	out[0] ^= m[0] & 0x0f
	for i := range 4 {
		out[at+i] ^= m[1+i]
	}
	return out, nil
}
