package server

import (
	"encoding/json"
	"strings"
)

// labelPatch is the merge patch for this server's own node.
func (s *Server) labelPatch() []byte {
	labels := map[string]string{
		"node-role.kubernetes.io/control-plane": "true",
		"node.kubernetes.io/instance-type":      "k3s",
	}
	annotations := map[string]string{"k3s.io/internal-ip": s.nodeIP, "k3s.io/hostname": s.nodeName}
	if s.hasEtcd() {
		labels["node-role.kubernetes.io/etcd"] = "true"
		if name, err := s.etcdName(); err == nil {
			annotations[memberName] = name
			annotations[memberAddress] = s.nodeIP
		}
	}
	for _, label := range s.Options.List("node-label") {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels, "annotations": annotations}})
	if err != nil {
		panic(err) // maps of strings always marshal
	}
	return data
}
