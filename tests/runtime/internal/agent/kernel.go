package agent

import (
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sirupsen/logrus"
)

var modules = []string{"overlay", "nf_conntrack", "br_netfilter", "iptable_nat", "iptable_filter", "nft-expr-counter", "nfnetlink-subsys-11", "nft-chain-2-nat"}

var sysctls = map[string]string{
	"net/ipv4/conf/all/forwarding":              "1",
	"net/ipv4/conf/default/forwarding":          "1",
	"net/ipv6/conf/all/forwarding":              "1",
	"net/ipv6/conf/default/forwarding":          "1",
	"net/bridge/bridge-nf-call-iptables":        "1",
	"net/bridge/bridge-nf-call-ip6tables":       "1",
	"net/netfilter/nf_conntrack_tcp_be_liberal": "1",
}

// prepareKernel loads modules and sets what pods need; failures only warn,
// because much may be built in.
func prepareKernel() {
	for _, module := range modules {
		if _, err := os.Stat(filepath.Join("/sys/module", module)); err == nil {
			continue
		}
		if out, err := exec.Command("modprobe", "--", module).CombinedOutput(); err != nil {
			logrus.Warnf("Failed to load kernel module %s: %v %s", module, err, out)
		}
	}
	for name, value := range sysctls {
		path := filepath.Join("/proc/sys", name)
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			logrus.Warnf("Failed to set %s=%s: %v", name, value, err)
		}
	}
}

// useSystemdCgroups follows k3s: systemd's driver only when systemd started
// this process and the cpuset controller is there.
func useSystemdCgroups() bool {
	controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && os.Getenv("INVOCATION_ID") != "" && containsWord(string(controllers), "cpuset")
}
