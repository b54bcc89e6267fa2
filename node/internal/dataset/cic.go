package dataset

import (
	"path/filepath"

	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// Names of samples of larger data sets: by classes of CIC-IDS2017, by clusters of
// the same (PWPAE, GLOBECOM 2021), and by clusters of IoTID20.
const (
	CICIDS2017 = "cic-ids2017"
	CICKMeans  = "cic-ids2017-kmeans"
	IoTID20    = "iotid20"
)

// cicFiles are their files below a folder of data sets.
var cicFiles = map[string]string{
	CICIDS2017: "cicids-samples/reinesaj2/cic_ids2017_multiclass.csv.gz",
	CICKMeans:  "cicids-samples/western-oc2/cic_0.01km.csv.gz",
	IoTID20:    "cicids-samples/western-oc2/IoT_2020_b_0.01_fs.csv.gz",
}

// cicMappings say what their columns mean. The ports of the third are kept, its
// addresses, numbered by whoever made the sample, are not.
var cicMappings = map[string]*Mapping{
	CICIDS2017: {
		Label: "Label", Normal: []string{"BENIGN"}, Absent: []string{"", "Infinity", "NaN", "inf", "nan"}, Unsigned: []string{"Flow Duration"},
		Classes: classes(map[string][]string{
			"dos": {"DoS Hulk", "DoS GoldenEye"}, "ddos": {"DDoS"}, "scan": {"PortScan"}, "guessing": {"FTP-Patator", "SSH-Patator"},
			"web": {"Web Attack \ufffd Brute Force", "Web Attack \ufffd XSS", "Web Attack \ufffd Sql Injection"},
		}),
	},
	CICKMeans: {
		Label: "Labelb", Normal: []string{"0"}, Classes: map[string]string{"1": "attack"}, Unsigned: []string{"Flow Duration"},
	},
	IoTID20: {
		Label: "Label", Normal: []string{"0"}, Classes: map[string]string{"1": "attack"},
		Ignore: []string{"Flow_ID", "Src_IP", "Dst_IP", "Timestamp"}, Unsigned: []string{"Flow_Duration"},
	},
}

// CICFile is the file of a sample, with slashes, below a folder of data sets.
func CICFile(name string) string { return cicFiles[name] }

// CICSample reads a sample below a folder of data sets.
func CICSample(data, name string) (*tabular.Table, *Report, error) {
	return Read(cicMappings[name], Part{File: filepath.Join(data, filepath.FromSlash(cicFiles[name]))})
}
