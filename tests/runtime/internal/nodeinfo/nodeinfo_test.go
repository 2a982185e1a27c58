package nodeinfo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const header = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"

func TestDefaultRouteWithLowestMetric(t *testing.T) {
	table := header +
		"eth1\t00000000\t0102000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n" +
		"eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n" +
		"eth2\t0002000A\t00000000\t0001\t0\t0\t1\t00FFFFFF\t0\t0\t0\n"
	name, err := parseRoutes(strings.NewReader(table))
	if err != nil || name != "eth0" {
		t.Errorf("%q %v", name, err)
	}
	if name, _ = parseRoutes(strings.NewReader(header)); name != "" {
		t.Errorf("no route, got %q", name)
	}
}

func TestPasswordIsMadeOnceAndAnyTextCounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node", "password")
	first, err := Password(file)
	if err != nil || len(first) != 32 {
		t.Fatal(first, err)
	}
	if second, _ := Password(file); second != first {
		t.Error("the password changed")
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := os.WriteFile(file, []byte(" seeded text \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := Password(file); got != "seeded text" {
		t.Errorf("%q", got)
	}
}
