// Package registries turns k3s' registries.yaml into containerd's settings.
package registries

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/sirupsen/logrus"
	"sigs.k8s.io/yaml"

	"k3img.test/runtime/internal/certs"
)

// File is k3s' registries.yaml.
type File struct {
	Mirrors map[string]struct {
		Endpoint []string          `json:"endpoint"`
		Rewrite  map[string]string `json:"rewrite"`
	} `json:"mirrors"`
	Configs map[string]registryConfig `json:"configs"`
}

type registryConfig struct {
	Auth *struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
		Token    string `json:"token"`
	} `json:"auth"`
	TLS *struct {
		CAFile   string `json:"ca_file"`
		CertFile string `json:"cert_file"`
		KeyFile  string `json:"key_file"`
		Insecure bool   `json:"insecure_skip_verify"`
	} `json:"tls"`
}

// Auth is one host's credentials for containerd's configuration.
type Auth struct{ Host, Username, Password, Auth, Token string }

// Read reads the file; without one there are no mirrors.
func Read(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	} else if err != nil {
		return nil, err
	}
	parsed := &File{}
	if err := yaml.UnmarshalStrict(data, parsed); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return parsed, nil
}

// Auths lists credentials in a stable order.
func (r *File) Auths() []Auth {
	var list []Auth
	for host, config := range r.Configs {
		if a := config.Auth; a != nil {
			list = append(list, Auth{Host: host, Username: a.Username, Password: a.Password, Auth: a.Auth, Token: a.Token})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Host < list[j].Host })
	return list
}

// WriteHosts writes one hosts.toml for each registry with a mirror or TLS
// settings; the folder is made anew so that removed entries go.
func (r *File) WriteHosts(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for registry, mirror := range r.Mirrors {
		if len(mirror.Rewrite) > 0 {
			logrus.Warnf("registries.yaml: rewrite of %s is ignored: upstream containerd has none", registry)
		}
		if err := r.writeHostsFile(dir, registry, mirror.Endpoint); err != nil {
			return err
		}
	}
	for registry, config := range r.Configs {
		if _, mirrored := r.Mirrors[registry]; mirrored || config.TLS == nil {
			continue
		}
		if err := r.writeHostsFile(dir, registry, nil); err != nil {
			return err
		}
	}
	return nil
}

func (r *File) writeHostsFile(dir, registry string, endpoints []string) error {
	var text strings.Builder
	folder := registry
	if registry == "*" {
		folder = "_default"
	} else {
		server := "https://" + registry
		if registry == "docker.io" {
			server = "https://registry-1.docker.io"
		}
		fmt.Fprintf(&text, "server = %q\n", server+"/v2")
		r.writeTLS(&text, "", registry)
	}
	for _, endpoint := range endpoints {
		if !strings.Contains(endpoint, "://") {
			endpoint = "https://" + endpoint
		}
		parsed, err := url.Parse(endpoint)
		if err != nil {
			return fmt.Errorf("registries.yaml: endpoint of %s: %w", registry, err)
		}
		if parsed.Path == "" || parsed.Path == "/" {
			parsed.Path = "/v2"
		}
		fmt.Fprintf(&text, "\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n", parsed.String())
		r.writeTLS(&text, "  ", parsed.Host)
	}
	return certs.WriteFile(filepath.Join(dir, strings.ReplaceAll(folder, ":", "_")+portSuffix(folder), "hosts.toml"), []byte(text.String()), 0o600)
}

// portSuffix closes containerd's spelling of a host with a port: `name_5000_`.
func portSuffix(host string) string {
	if strings.Contains(host, ":") {
		return "_"
	}
	return ""
}

func (r *File) writeTLS(text *strings.Builder, indent, host string) {
	tls := r.Configs[host].TLS
	if tls == nil {
		return
	}
	if tls.Insecure {
		fmt.Fprintf(text, "%sskip_verify = true\n", indent)
	}
	if tls.CAFile != "" {
		fmt.Fprintf(text, "%sca = [%q]\n", indent, tls.CAFile)
	}
	if tls.CertFile != "" {
		fmt.Fprintf(text, "%sclient = [[%q, %q]]\n", indent, tls.CertFile, tls.KeyFile)
	}
}
