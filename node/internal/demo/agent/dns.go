package agent

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// dnsQuestion builds a DNS query of about size bytes (28 at least) whose first
// label is the length of the wanted answer.
func dnsQuestion(id uint16, size, answer int) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0) // recursion desired, one question
	want := strconv.Itoa(answer)
	b = append(append(b, byte(len(want))), want...)
	pad := min(size-len(b)-6, 63)
	if pad > 0 {
		b = append(b, byte(pad))
		for i := range pad {
			b = append(b, byte('a'+i%26))
		}
	}
	return append(b, 0, 0, 1, 0, 1) // root, type A, class IN
}

// dnsAnswer builds the answer that a question asks for: the question itself
// followed by one record of padding.
func dnsAnswer(q []byte) ([]byte, error) {
	if len(q) < 12+1+5 || q[2]&0x80 != 0 {
		return nil, errors.New("dns: not a question")
	}
	n := int(q[12])
	if n == 0 || n > 5 || 13+n > len(q) {
		return nil, errors.New("dns: the first label is no length")
	}
	want, err := strconv.Atoi(string(q[13 : 13+n]))
	if err != nil || want < 0 || want > 1232 {
		return nil, errors.New("dns: the first label is no length up to 1232")
	}
	a := append([]byte(nil), q...)
	a[2], a[3], a[7] = a[2]|0x80, 0x80, 1
	pad := max(want-len(q)-12, 4)
	a = append(a, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60)
	a = binary.BigEndian.AppendUint16(a, uint16(pad))
	for i := range pad {
		a = append(a, byte('a'+i%26))
	}
	return a, nil
}
