// Package kubeconfig writes the files by which a node's parts reach the API.
package kubeconfig

import (
	"errors"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"k3img.test/runtime/internal/certs"
)

// Write writes a kubeconfig with its certificates embedded: the client's are
// base.crt and base.key.
func Write(path, server string, ca []byte, base string, mode os.FileMode) error {
	cert, certErr := os.ReadFile(base + ".crt")
	key, keyErr := os.ReadFile(base + ".key")
	if err := errors.Join(certErr, keyErr); err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["default"] = &api.Cluster{Server: server, CertificateAuthorityData: ca}
	config.AuthInfos["default"] = &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	config.Contexts["default"] = &api.Context{Cluster: "default", AuthInfo: "default"}
	config.CurrentContext = "default"
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return certs.WriteFile(path, data, mode)
}
