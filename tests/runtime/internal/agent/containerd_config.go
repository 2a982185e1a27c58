package agent

import "text/template"

// configTemplate is containerd's configuration.
var configTemplate = template.Must(template.New("config.toml").Parse(`# Written at every start; do not edit.
version = 3
root = {{printf "%q" .Root}}
state = {{printf "%q" .State}}
imports = [{{printf "%q" .DropIns}}]
disabled_plugins = [{{range $i, $p := .Disabled}}{{if $i}}, {{end}}{{printf "%q" $p}}{{end}}]

[grpc]
  address = {{printf "%q" .Socket}}

[ttrpc]
  address = "{{.Socket}}.ttrpc"

[plugins.'io.containerd.internal.v1.opt']
  path = {{printf "%q" .Root}}

[plugins.'io.containerd.cri.v1.runtime']
  enable_selinux = false
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{{printf "%q" .CNIBin}}]
  conf_dir = {{printf "%q" .CNIConf}}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = {{.Systemd}}

[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = {{printf "%q" .Snapshotter}}
  disable_snapshot_annotations = true
  use_local_image_pull = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {{printf "%q" .Pause}}

[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = {{printf "%q" .Certs}}
{{range .Auth}}
[plugins.'io.containerd.cri.v1.images'.registry.configs.{{printf "%q" .Host}}.auth]
  username = {{printf "%q" .Username}}
  password = {{printf "%q" .Password}}
  auth = {{printf "%q" .Auth}}
  identitytoken = {{printf "%q" .Token}}
{{end}}`))

// disabledPlugins leaves out what a node does not use: it saves memory and time.
func disabledPlugins(snapshotter string) []string {
	disabled := []string{"io.containerd.nri.v1.nri", "io.containerd.differ.v1.erofs", "io.containerd.image-verifier.v1.bindir"}
	for _, name := range []string{"overlayfs", "native", "blockfile", "erofs"} {
		if name != snapshotter {
			disabled = append(disabled, "io.containerd.snapshotter.v1."+name)
		}
	}
	return disabled
}
