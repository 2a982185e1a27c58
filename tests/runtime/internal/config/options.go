package config

// Role is a set of commands that know an option.
type Role uint8

// The roles that read options.
const (
	Server Role = 1 << iota
	Agent
	Snapshot
	both = Server | Agent
	all  = Server | Agent | Snapshot
)

// Kind says how an option's value is read.
type Kind uint8

// The kinds of options.
const (
	String Kind = iota
	Bool
	List
)

// Option is one command line option of k3s.
type Option struct {
	Name    string
	Short   string
	Env     string
	Kind    Kind
	Roles   Role
	Default string
	// Ignored marks an option that is accepted but has no effect here.
	Ignored bool
}

// Table is every option of k3s v1.36 that the stand-in knows about. What k3s
// has and this table has not is unknown on purpose.
var Table = concat(
	group(all, false, String, "config/c=/etc/rancher/k3s/config.yaml:K3S_CONFIG_FILE", "data-dir/d=/var/lib/rancher/k3s:K3S_DATA_DIR", "token/t:K3S_TOKEN", "log/l"),
	group(all, false, Bool, "debug:K3S_DEBUG"),
	group(all, true, Bool, "alsologtostderr"),
	group(all, true, String, "v=0", "vmodule"),
	group(both, false, String, "token-file:K3S_TOKEN_FILE", "server/s:K3S_URL", "node-name:K3S_NODE_NAME", "resolv-conf:K3S_RESOLV_CONF",
		"snapshotter=overlayfs", "private-registry=/etc/rancher/k3s/registries.yaml", "pause-image=rancher/mirrored-pause:3.10.2", "lb-server-port=6444:K3S_LB_SERVER_PORT"),
	group(both, false, Bool, "protect-kernel-defaults", "with-node-id"),
	group(both, false, List, "node-ip/i:K3S_NODE_IP", "node-label", "node-taint", "kubelet-arg", "kube-proxy-arg"),
	group(both, true, String, "flannel-iface", "flannel-conf", "flannel-cni-conf", "vpn-auth:K3S_VPN_AUTH", "vpn-auth-file:K3S_VPN_AUTH_FILE",
		"default-runtime", "container-runtime-endpoint", "image-service-endpoint", "image-credential-provider-bin-dir", "image-credential-provider-config", "airgap-extra-registry"),
	group(both, true, List, "node-external-ip:K3S_NODE_EXTERNAL_IP", "node-internal-dns", "node-external-dns"),
	group(both, true, Bool, "selinux:K3S_SELINUX", "disable-default-registry-endpoint", "nonroot-devices", "docker", "disable-apiserver-lb", "prefer-bundled-bin", "rootless"),

	group(Server|Snapshot, false, String, "etcd-snapshot-dir"),
	group(Server, false, String, "agent-token:K3S_AGENT_TOKEN", "agent-token-file:K3S_AGENT_TOKEN_FILE", "datastore-endpoint:K3S_DATASTORE_ENDPOINT", "datastore-cafile:K3S_DATASTORE_CAFILE",
		"datastore-certfile:K3S_DATASTORE_CERTFILE", "datastore-keyfile:K3S_DATASTORE_KEYFILE", "advertise-address", "advertise-port", "bind-address", "https-listen-port=6443",
		"cluster-domain=cluster.local", "service-node-port-range=30000-32767", "write-kubeconfig/o:K3S_KUBECONFIG_OUTPUT", "write-kubeconfig-mode:K3S_KUBECONFIG_MODE", "cluster-reset-restore-path"),
	group(Server, false, Bool, "cluster-init:K3S_CLUSTER_INIT", "cluster-reset:K3S_CLUSTER_RESET", "disable-scheduler", "disable-kube-proxy", "etcd-expose-metrics", "disable-agent"),
	group(Server, false, List, "tls-san", "cluster-cidr=10.42.0.0/16", "service-cidr=10.43.0.0/16", "cluster-dns", "disable:K3S_DISABLE",
		"kube-apiserver-arg", "kube-controller-manager-arg", "kube-scheduler-arg", "etcd-arg"),
	group(Server, true, String, "flannel-backend=vxlan", "egress-selector-mode=agent", "system-default-registry:K3S_SYSTEM_DEFAULT_REGISTRY", "default-local-storage-path", "write-kubeconfig-group:K3S_KUBECONFIG_GROUP",
		"secrets-encryption-provider=aescbc", "etcd-snapshot-name=etcd-snapshot", "etcd-snapshot-schedule-cron=0 */12 * * *", "etcd-snapshot-retention=5", "etcd-snapshot-reconcile-interval=10m", "helm-job-image"),
	group(Server, true, Bool, "tls-san-security=true", "flannel-ipv6-masq", "flannel-external-ip", "disable-cloud-controller", "disable-network-policy", "disable-helm-controller", "disable-apiserver",
		"disable-controller-manager", "disable-etcd", "embedded-registry", "supervisor-metrics", "secrets-encryption", "kine-tls", "etcd-disable-snapshots", "etcd-snapshot-compress", "enable-pprof"),
	group(Server, true, List, "kube-cloud-controller-manager-arg", "helm-controller-arg"),
	group(Server|Snapshot, true, Bool, "etcd-s3", "etcd-s3-skip-ssl-verify", "etcd-s3-insecure"),
	group(Server|Snapshot, true, String, "etcd-s3-endpoint", "etcd-s3-endpoint-ca", "etcd-s3-access-key", "etcd-s3-secret-key", "etcd-s3-session-token", "etcd-s3-bucket", "etcd-s3-bucket-lookup-type",
		"etcd-s3-region", "etcd-s3-folder", "etcd-s3-retention", "etcd-s3-proxy", "etcd-s3-config-secret", "etcd-s3-timeout"),
	group(Snapshot, false, String, "name", "etcd-server", "node-name:K3S_NODE_NAME", "output/o"),
)

// group makes options from `name[/short][=default][:ENV]` strings.
func group(roles Role, ignored bool, kind Kind, specs ...string) []Option {
	options := make([]Option, 0, len(specs))
	for _, spec := range specs {
		options = append(options, parseSpec(spec, roles, ignored, kind))
	}
	return options
}

// parseSpec reads one string of the table.
func parseSpec(spec string, roles Role, ignored bool, kind Kind) Option {
	option := Option{Roles: roles, Ignored: ignored, Kind: kind}
	if at := lastIndexEnv(spec); at >= 0 {
		spec, option.Env = spec[:at], spec[at+1:]
	}
	spec, option.Default = cut(spec, '=')
	option.Name, option.Short = cut(spec, '/')
	return option
}

// lastIndexEnv finds the colon before an environment variable's name.
func lastIndexEnv(spec string) int {
	for i := len(spec) - 1; i >= 0; i-- {
		if spec[i] == ':' && i+4 < len(spec) && spec[i+1:i+5] == "K3S_" {
			return i
		}
	}
	return -1
}

// cut splits at the first separator.
func cut(s string, sep byte) (before, after string) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

func concat(groups ...[]Option) []Option {
	var table []Option
	for _, g := range groups {
		table = append(table, g...)
	}
	return table
}

// Find looks an option up by its long or short name for a role.
func Find(role Role, name string) (Option, bool) {
	for _, option := range Table {
		if option.Roles&role != 0 && (option.Name == name || (option.Short != "" && option.Short == name)) {
			return option, true
		}
	}
	return Option{}, false
}
