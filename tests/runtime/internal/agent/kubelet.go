package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/parts"
)

// kubeletArgs writes the kubelet's configuration and returns its arguments.
func (n *Node) kubeletArgs() ([]string, error) {
	dropIns := n.Dir("etc", "kubelet.conf.d")
	config, err := yaml.Marshal(n.kubeletConfig())
	if err != nil {
		return nil, err
	}
	if err := certs.WriteFile(filepath.Join(dropIns, "00-k3s-defaults.conf"), config, 0o600); err != nil {
		return nil, err
	}
	extra, err := n.copyKubeletDropIns(dropIns)
	if err != nil {
		return nil, err
	}
	defaults := map[string]string{
		"config-dir":                 dropIns,
		"kubeconfig":                 n.Dir("kubelet.kubeconfig"),
		"hostname-override":          n.Name,
		"node-ip":                    strings.Join(n.IPs, ","),
		"container-runtime-endpoint": "unix://" + Socket,
	}
	if labels := n.Options.List("node-label"); len(labels) > 0 {
		defaults["node-labels"] = strings.Join(labels, ",")
	}
	if taints := n.Options.List("node-taint"); len(taints) > 0 {
		defaults["register-with-taints"] = strings.Join(taints, ",")
	}
	return parts.Flags(defaults, extra, logrus.Warnf), nil
}

// copyKubeletDropIns takes `config=` and `config-dir=` out of kubelet-arg and
// copies what they name behind the defaults, as k3s does.
func (n *Node) copyKubeletDropIns(dropIns string) ([]string, error) {
	var rest []string
	for _, arg := range n.Options.List("kubelet-arg") {
		name, path, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		var files []string
		target := "20-cli-config-dir-%s"
		switch name {
		case "config":
			files, target = []string{path}, "10-cli-config.conf"
		case "config-dir":
			files, _ = filepath.Glob(filepath.Join(path, "*.conf"))
		default:
			rest = append(rest, arg)
			continue
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("kubelet-arg %s: %w", arg, err)
			}
			to := target
			if strings.Contains(to, "%s") {
				to = fmt.Sprintf(to, filepath.Base(file))
			}
			if err := certs.WriteFile(filepath.Join(dropIns, to), data, 0o600); err != nil {
				return nil, err
			}
		}
	}
	return rest, nil
}

// kubeletConfig is the defaults that k3s gives to the kubelet.
func (n *Node) kubeletConfig() map[string]any {
	driver := "cgroupfs"
	if useSystemdCgroups() {
		driver = "systemd"
	}
	config := map[string]any{
		"apiVersion":         "kubelet.config.k8s.io/v1beta1",
		"kind":               "KubeletConfiguration",
		"healthzBindAddress": "127.0.0.1",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": n.Dir("client-ca.crt")},
		},
		"authorization":          map[string]any{"mode": "Webhook"},
		"tlsCertFile":            n.Dir("serving-kubelet.crt"),
		"tlsPrivateKeyFile":      n.Dir("serving-kubelet.key"),
		"clusterDomain":          n.ClusterDomain,
		"clusterDNS":             n.ClusterDNS,
		"cgroupDriver":           driver,
		"failSwapOn":             false,
		"serializeImagePulls":    false,
		"staticPodPath":          n.Dir("pod-manifests"),
		"evictionHard":           map[string]string{"imagefs.available": "5%", "nodefs.available": "5%"},
		"evictionMinimumReclaim": map[string]string{"imagefs.available": "10%", "nodefs.available": "10%"},
		"protectKernelDefaults":  n.Options.Bool("protect-kernel-defaults"),
		"volumePluginDir":        "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/",
		"readOnlyPort":           0, // without a main file the old default would open 10255
	}
	if path := n.resolvConf(); path != "" {
		config["resolvConf"] = path
	}
	return config
}

// resolvConf chooses the resolver file for pods: the option is not checked;
// a file with loopback servers only is no use to a pod.
func (n *Node) resolvConf() string {
	if path := n.Options.Get("resolv-conf"); path != "" {
		return path
	}
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		if data, err := os.ReadFile(path); err == nil && hasUsableServer(string(data)) {
			return path
		}
	}
	fallback := n.Dir("etc", "resolv.conf")
	logrus.Warnf("Host resolv.conf includes loopback or no nameservers: pods get 8.8.8.8 by %s", fallback)
	if err := certs.WriteFile(fallback, []byte("nameserver 8.8.8.8\nnameserver 2001:4860:4860::8888\n"), 0o644); err != nil {
		logrus.Warnf("Failed to write %s: %v", fallback, err)
		return ""
	}
	return fallback
}

func hasUsableServer(text string) bool {
	usable := false
	for _, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if strings.HasPrefix(fields[1], "127.") || fields[1] == "::1" || strings.HasPrefix(fields[1], "169.254.") || strings.HasPrefix(fields[1], "fe80:") {
			return false
		}
		usable = true
	}
	return usable
}

// proxyArgs returns kube-proxy's arguments.
func (n *Node) proxyArgs() []string {
	return parts.Flags(map[string]string{
		"kubeconfig":                        n.Dir("kubeproxy.kubeconfig"),
		"hostname-override":                 n.Name,
		"cluster-cidr":                      n.ClusterCIDR,
		"proxy-mode":                        "iptables",
		"healthz-bind-address":              "127.0.0.1",
		"conntrack-max-per-core":            "0",
		"conntrack-tcp-timeout-established": "0s",
		"conntrack-tcp-timeout-close-wait":  "0s",
	}, n.Options.List("kube-proxy-arg"), logrus.Warnf)
}
