package join

// Paths and headers of the supervisor, as k3s names them (pkg/server/handlers).
const (
	Config        = "/v1-k3s/config"
	APIServers    = "/v1-k3s/apiservers"
	ClientCA      = "/v1-k3s/client-ca.crt"
	ClientKubelet = "/v1-k3s/client-kubelet.crt"
	ServeKubelet  = "/v1-k3s/serving-kubelet.crt"
	ClientProxy   = "/v1-k3s/client-kube-proxy.crt"
	Bootstrap     = "/v1-k3s/server-bootstrap"
	NewToken      = "/v1-k3s/token"
	// Members is the stand-in's own: k3s' joining server speaks to etcd itself.
	Members = "/db/members"

	NodeName     = "k3s-Node-Name"
	NodePassword = "k3s-Node-Password"
	NodeIP       = "k3s-Node-IP"
)

// AgentConfig is what an agent takes from its server.
type AgentConfig struct {
	ClusterCIDR   string   `json:"clusterCIDR"`
	ClusterDNS    []string `json:"clusterDNS"`
	ClusterDomain string   `json:"clusterDomain"`
}

// BootstrapData is what a joining server takes from a running one: the
// cluster's CAs by path below server/tls, and what must be equal everywhere.
type BootstrapData struct {
	Files    map[string][]byte `json:"files"`
	Critical map[string]string `json:"critical"`
}

// Member is one etcd member.
type Member struct {
	ID      uint64   `json:"id"`
	Name    string   `json:"name"`
	PeerURL []string `json:"peerURLs"`
	Learner bool     `json:"learner"`
}

// MemberRequest asks for a member to be added.
type MemberRequest struct {
	NodeName string `json:"nodeName"`
	PeerURL  string `json:"peerURL"`
}

// TokenRequest sets a new server token.
type TokenRequest struct {
	NewToken string `json:"newToken"`
}
