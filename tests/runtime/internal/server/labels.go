package server

import (
	"maps"

	"k3img.test/runtime/internal/agent"
)

// nodeMetadata is what this server's own node gets at every start.
func (s *Server) nodeMetadata() map[string]any {
	labels := map[string]string{"node-role.kubernetes.io/control-plane": "true"}
	annotations := map[string]string{"k3s.io/internal-ip": s.nodeIP, "k3s.io/hostname": s.nodeName}
	if s.hasEtcd() {
		labels["node-role.kubernetes.io/etcd"] = "true"
		if name, err := s.etcdName(); err == nil {
			annotations[memberName] = name
			annotations[memberAddress] = s.nodeIP
		}
	}
	maps.Copy(labels, agent.Labels(s.Options))
	return map[string]any{"labels": labels, "annotations": annotations}
}
