package intake

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// maxTruth bounds the packets of one truth file.
const maxTruth = 100_000_000

// ReadPacketTruth reads the ground truth of a capture packet by packet: lines
// "index;label" (or with a comma), where index counts the packets from 1
// without a gap and label 0 is normal, 1 an attack. Element i of the result is
// true when packet i+1 is an attack. A first line that is no number is taken
// for a heading.
func ReadPacketTruth(path string) (labels []bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open packet truth: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return readTruth(path, f)
}

func readTruth(path string, r io.Reader) (labels []bool, err error) {
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		index, attack, err := truthLine(text)
		switch {
		case err != nil && n == 1:
			continue
		case err != nil:
			return nil, fmt.Errorf("packet truth %s: line %d: %w", path, n, err)
		case index != len(labels)+1:
			return nil, fmt.Errorf("packet truth %s: line %d: index %d: expected %d, every packet in order", path, n, index, len(labels)+1)
		case index > maxTruth:
			return nil, fmt.Errorf("packet truth %s: line %d: more than %d packets", path, n, maxTruth)
		}
		labels = append(labels, attack)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("packet truth %s: %w", path, err)
	}
	if len(labels) == 0 {
		return nil, fmt.Errorf("packet truth %s: no line of the form index;label", path)
	}
	return labels, nil
}

func truthLine(text string) (index int, attack bool, err error) {
	first, label, ok := strings.Cut(text, ";")
	if !ok {
		first, label, ok = strings.Cut(text, ",")
	}
	index, bad := strconv.Atoi(strings.TrimSpace(first))
	label = strings.TrimSpace(label)
	if !ok || bad != nil || label != "0" && label != "1" {
		return 0, false, fmt.Errorf("%.60q: expected index;label with label 0 or 1", text)
	}
	return index, label == "1", nil
}
