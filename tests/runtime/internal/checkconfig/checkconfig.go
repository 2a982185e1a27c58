// Package checkconfig compares the running kernel with what k3s needs.
package checkconfig

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

var required = strings.Fields(`NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_PIDS CGROUP_CPUACCT CGROUP_DEVICE
CGROUP_FREEZER CGROUP_SCHED CPUSETS MEMCG SECCOMP KEYS VETH BRIDGE BRIDGE_NETFILTER IP_NF_FILTER IP_NF_TARGET_MASQUERADE
IP_NF_TARGET_REJECT NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_IPVS NETFILTER_XT_MATCH_COMMENT
NETFILTER_XT_MATCH_MULTIPORT NETFILTER_XT_MATCH_STATISTIC IP_NF_NAT NF_NAT POSIX_MQUEUE`)

var optional = strings.Fields(`USER_NS BLK_CGROUP BLK_DEV_THROTTLING CGROUP_PERF CGROUP_HUGETLB CGROUP_NET_PRIO CFS_BANDWIDTH
FAIR_GROUP_SCHED IP_NF_TARGET_REDIRECT IP_SET IP_VS IP_VS_NFCT IP_VS_PROTO_TCP IP_VS_PROTO_UDP IP_VS_RR EXT4_FS VXLAN OVERLAY_FS`)

// Run prints one line per kernel option and returns how many required ones
// are missing.
func Run(out io.Writer, path string) (missing int, err error) {
	if path == "" {
		if path, err = find(); err != nil {
			return 0, err
		}
	}
	fmt.Fprintf(out, "info: reading kernel config from %s ...\n", path)
	options, err := read(path)
	if err != nil {
		return 0, err
	}
	fmt.Fprintln(out, "\nGenerally Necessary:")
	for _, name := range required {
		state := options[name]
		if state == "" {
			missing++
			state = "missing (fail)"
		}
		fmt.Fprintf(out, "- CONFIG_%s: %s\n", name, word(state))
	}
	fmt.Fprintln(out, "\nOptional Features:")
	for _, name := range optional {
		state := options[name]
		if state == "" {
			state = "missing"
		}
		fmt.Fprintf(out, "- CONFIG_%s: %s\n", name, word(state))
	}
	if missing > 0 {
		fmt.Fprintf(out, "\nSTATUS: %d (fail)\n", missing)
	} else {
		fmt.Fprintln(out, "\nSTATUS: pass")
	}
	return missing, nil
}

func word(state string) string {
	switch state {
	case "y":
		return "enabled"
	case "m":
		return "enabled (as module)"
	}
	return state
}

// find returns the running kernel's configuration.
func find() (string, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	version := strings.TrimSpace(string(release))
	candidates := []string{"/proc/config.gz", "/boot/config-" + version, filepath.Join("/usr/lib/modules", version, "config")}
	for _, path := range candidates {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no kernel config at %s; name one: check-config PATH", strings.Join(candidates, ", "))
}

// read returns the options that are built in ("y") or modules ("m").
func read(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var reader io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if reader, err = gzip.NewReader(file); err != nil {
			return nil, err
		}
	}
	options := map[string]string{}
	scanner := bufio.NewScanner(reader)
	for scanner.Scan() {
		name, value, ok := strings.Cut(scanner.Text(), "=")
		if ok && strings.HasPrefix(name, "CONFIG_") {
			options[strings.TrimPrefix(name, "CONFIG_")] = value
		}
	}
	return options, scanner.Err()
}
