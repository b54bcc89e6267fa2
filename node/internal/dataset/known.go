package dataset

import (
	"fmt"
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// Names of the data sets whose form is known.
const (
	NSLKDD   = "nsl-kdd"
	UNSWNB15 = "unsw-nb15"
	Westermo = "westermo"
)

// Known lists them.
func Known() []string { return []string{NSLKDD, UNSWNB15, Westermo, Stratosphere} }

// nslkdd has no line of names. Its 42nd column names the attack, and the last
// says how many of 21 old classifiers were right, which is no feature. The
// column of outbound commands is 0 throughout.
var nslkdd = Mapping{
	Columns: []string{
		"duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "wrong_fragment", "urgent",
		"hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted", "num_root",
		"num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds", "is_host_login", "is_guest_login",
		"count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate", "srv_rerror_rate", "same_srv_rate",
		"diff_srv_rate", "srv_diff_host_rate", "dst_host_count", "dst_host_srv_count", "dst_host_same_srv_rate",
		"dst_host_diff_srv_rate", "dst_host_same_src_port_rate", "dst_host_srv_diff_host_rate", "dst_host_serror_rate",
		"dst_host_srv_serror_rate", "dst_host_rerror_rate", "dst_host_srv_rerror_rate", "attack", "difficulty",
	},
	Label: "attack", Normal: []string{"normal"},
	Words:  []string{"protocol_type", "service", "flag"},
	Ignore: []string{"difficulty", "num_outbound_cmds"}, Unsigned: []string{every},
	// The four classes of Tavallaee et al. 2009, also of the attacks that only
	// the test file has.
	Classes: classes(map[string][]string{
		"dos":   {"back", "land", "neptune", "pod", "smurf", "teardrop", "apache2", "mailbomb", "processtable", "udpstorm"},
		"probe": {"ipsweep", "nmap", "portsweep", "satan", "mscan", "saint"},
		"r2l": {"ftp_write", "guess_passwd", "imap", "multihop", "phf", "spy", "warezclient", "warezmaster", "httptunnel",
			"named", "sendmail", "snmpgetattack", "snmpguess", "worm", "xlock", "xsnoop"},
		"u2r": {"buffer_overflow", "loadmodule", "perl", "rootkit", "ps", "sqlattack", "xterm"},
	}),
}

func classes(of map[string][]string) map[string]string {
	out := map[string]string{}
	for class, words := range of {
		for _, w := range words {
			out[w] = class
		}
	}
	return out
}

var unsw = Mapping{
	Label: "attack_cat", Normal: []string{"Normal"},
	Words:  []string{"proto", "service", "state"},
	Ignore: []string{"id", "label"}, Unsigned: []string{every},
}

// westermo is labelled by who sent a flow (NST), with several classes (M),
// since the two-class column calls GOOD-SSH an attack.
var westermo = Mapping{
	Label: "NST_M_Label", Normal: []string{"Normal", "GOOD-SSH"},
	Words: []string{"protocol"},
	Ignore: []string{
		"sAddress", "rAddress", "sMACs", "rMACs", "sIPs", "rIPs", "startDate", "endDate", "end",
		"startOffset", "endOffset", "IT_B_Label", "IT_M_Label", "NST_B_Label",
	},
	Time: "start", Split: "time", Unsigned: []string{every},
}

// NSL reads the official training file of NSL-KDD below a folder of data sets.
func NSL(data string) (*tabular.Table, *Report, error) {
	return Read(&nslkdd, Part{File: filepath.Join(data, NSLKDD, "KDDTrain+.txt.gz")})
}

// NSLBoth reads the official training and test files as one table, so that
// words and classes have one numbering, and says where the test begins.
func NSLBoth(data string) (t *tabular.Table, train int, rep *Report, err error) {
	dir := filepath.Join(data, NSLKDD)
	t, rep, err = Read(&nslkdd, Part{File: filepath.Join(dir, "KDDTrain+.txt.gz"), Place: "train"}, Part{File: filepath.Join(dir, "KDDTest+.txt.gz"), Place: "test"})
	if err != nil {
		return nil, 0, nil, err
	}
	here, _ := t.ByPlace(0)
	return t, len(here), rep, nil
}

// UNSW reads the 82,332 rows of UNSW-NB15 below a folder of data sets.
func UNSW(data string) (*tabular.Table, *Report, error) {
	return Read(&unsw, Part{File: filepath.Join(data, UNSWNB15, "UNSW_NB15_training-set.csv.gz")})
}

// WestermoFlows reads the flows of the three gateways below a folder of data sets.
func WestermoFlows(data string) (*tabular.Table, *Report, error) {
	var parts []Part
	for _, place := range []string{"bottom", "left", "right"} {
		parts = append(parts, Part{
			File:  filepath.Join(data, "westermo-2023", "data", "reduced", "flows", fmt.Sprintf("output_%s.csv.gz", place)),
			Place: place,
		})
	}
	return Read(&westermo, parts...)
}
