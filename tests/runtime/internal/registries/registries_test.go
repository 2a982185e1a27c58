package registries

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const example = `
mirrors:
  docker.io: {endpoint: ["http://10.0.0.1:5000"]}
  "reg.local:5001": {endpoint: ["https://a.b:443/v2/proxy"]}
  "*":
configs:
  "10.0.0.1:5000": {auth: {username: u, password: p}}
  "a.b:443": {tls: {insecure_skip_verify: true}}
  "only.tls": {tls: {ca_file: /ca.pem}}
`

// write writes the hosts files of an example and returns their folder.
func write(t *testing.T, text string) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "certs.d")
	if err := file.WriteHosts(dir); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

func TestHosts(t *testing.T) {
	file, dir := write(t, example)
	for folder, wants := range map[string][]string{
		"docker.io":       {`server = "https://registry-1.docker.io/v2"`, `[host."http://10.0.0.1:5000/v2"]`, "override_path = true"},
		"reg.local_5001_": {`server = "https://reg.local:5001/v2"`, `[host."https://a.b:443/v2/proxy"]`, "  skip_verify = true"},
		"only.tls":        {`ca = ["/ca.pem"]`},
		"_default":        {""},
	} {
		data, err := os.ReadFile(filepath.Join(dir, folder, "hosts.toml"))
		if err != nil {
			t.Error(err)
		}
		for _, want := range wants {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s: no %s in\n%s", folder, want, data)
			}
		}
	}
	if auths := file.Auths(); len(auths) != 1 || auths[0].Host != "10.0.0.1:5000" || auths[0].Username != "u" {
		t.Errorf("%+v", auths)
	}
}

func TestMissingFileAndUnknownKey(t *testing.T) {
	if file, err := Read(filepath.Join(t.TempDir(), "none")); err != nil || file.Mirrors != nil {
		t.Error(file, err)
	}
	path := filepath.Join(t.TempDir(), "registries.yaml")
	if err := os.WriteFile(path, []byte("mirrosr: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil {
		t.Error("an unknown key must be an error")
	}
}
