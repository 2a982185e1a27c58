package checkconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	var lines []string
	for i, name := range required {
		if i > 0 { // the first one is missing
			lines = append(lines, "CONFIG_"+name+"=m")
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n# CONFIG_NAMESPACES is not set\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	missing, err := Run(&out, path)
	if err != nil || missing != 1 || !strings.Contains(out.String(), "STATUS: 1 (fail)") {
		t.Errorf("%d %v\n%s", missing, err, out.String())
	}
}
