package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// tree writes a main file and drop-ins and returns the main file's path.
func tree(t *testing.T, main string, dropIns map[string]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if main != "" {
		write(t, path, main)
	}
	for name, text := range dropIns {
		write(t, filepath.Join(path+".d", name), text)
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMergeRules(t *testing.T) {
	path := tree(t, "node-label: [a=1]\ntls-san: [one]\ndebug: true\n", map[string]string{
		"10-base.yaml":  "tls-san+: [two]\nnode-label: [b=2]\n",
		"20-node.yml":   "tls-san+: three\nnode-name: n1\n",
		"30-ignored.md": "node-name: wrong\n",
	})
	entries, err := ReadFiles(path, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"--node-label=b=2", "--tls-san=one", "--tls-san=two", "--tls-san=three", "--debug=true", "--node-name=n1"}
	if got := Args(entries); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAppendedKeyIsReplacedByPlainKey(t *testing.T) {
	path := tree(t, "", map[string]string{"1.yaml": "tls-san+: [a]\n", "2.yaml": "tls-san: [b]\n"})
	entries, err := ReadFiles(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := Args(entries); !reflect.DeepEqual(got, []string{"--tls-san=b"}) {
		t.Errorf("got %v", got)
	}
}

func TestMissingExplicitFileFails(t *testing.T) {
	if _, err := ReadFiles(filepath.Join(t.TempDir(), "none.yaml"), true); err == nil {
		t.Error("a named file that is missing must be an error")
	}
	if entries, err := ReadFiles(filepath.Join(t.TempDir(), "none.yaml"), false); err != nil || entries != nil {
		t.Errorf("the default file may be missing, got %v %v", entries, err)
	}
}

func TestCommandLineWins(t *testing.T) {
	path := tree(t, "tls-san: [a, b]\nnode-name: file\nd: /data\n", nil)
	values, err := Load(Server, []string{"--config", path, "--tls-san", "c", "--node-name=line", "--cluster-init"})
	if err != nil {
		t.Fatal(err)
	}
	if got := values.List("tls-san"); !reflect.DeepEqual(got, []string{"c"}) {
		t.Errorf("tls-san %v", got)
	}
	if values.Get("node-name") != "line" || values.Get("data-dir") != "/data" || !values.Bool("cluster-init") {
		t.Errorf("values %v", values.set)
	}
}

func TestUnknownKey(t *testing.T) {
	path := tree(t, "cluster-init: true\nno-such-thing: 1\nnode-name: x\n", nil)
	values, err := Load(Server, []string{"-c", path})
	if err != nil {
		t.Fatal(err)
	}
	if len(values.Warnings) != 1 || !strings.Contains(values.Warnings[0], "no-such-thing") {
		t.Errorf("warnings %v", values.Warnings)
	}
	_, err = Load(Agent, []string{"-c", path})
	if err == nil || err.Error() != "flag provided but not defined: -cluster-init" {
		t.Errorf("an agent must die on a server's option, got %v", err)
	}
	if _, err = Load(Server, []string{"--no-such-thing"}); err == nil {
		t.Error("an unknown option on the command line must be an error")
	}
}

func TestEnvironment(t *testing.T) {
	path := tree(t, "node-name: file\n", nil)
	t.Setenv("K3S_CONFIG_FILE", path)
	t.Setenv("K3S_NODE_NAME", "env")
	t.Setenv("K3S_TOKEN", "secret")
	values, err := Load(Server, nil)
	if err != nil {
		t.Fatal(err)
	}
	if values.Get("node-name") != "file" || values.Get("token") != "secret" {
		t.Errorf("values %v", values.set)
	}
}

func TestIgnoredOptionIsNamed(t *testing.T) {
	path := tree(t, "flannel-backend: none\n", nil)
	values, err := Load(Server, []string{"-c", path})
	if err != nil || len(values.Warnings) != 1 || !strings.Contains(values.Warnings[0], "flannel-backend") {
		t.Errorf("%v %v", values.Warnings, err)
	}
}

func TestTable(t *testing.T) {
	seen := map[string]Role{}
	for _, option := range Table {
		if option.Name == "" || strings.ContainsAny(option.Name, "/=:") || seen[option.Name]&option.Roles != 0 {
			t.Errorf("bad or double option %+v", option)
		}
		seen[option.Name] |= option.Roles
	}
	if option, _ := Find(Server, "etcd-snapshot-schedule-cron"); option.Default != "0 */12 * * *" {
		t.Errorf("%+v", option)
	}
	if option, _ := Find(Server, "d"); option.Env != "K3S_DATA_DIR" || option.Default != "/var/lib/rancher/k3s" {
		t.Errorf("%+v", option)
	}
}

func TestFindString(t *testing.T) {
	path := tree(t, "data-dir: /file\n", nil)
	if got := FindString([]string{"server", "-c", path}, "data-dir", "d"); got != "/file" {
		t.Error(got)
	}
	if got := FindString([]string{"server", "-c", path, "-d", "/line"}, "data-dir", "d"); got != "/line" {
		t.Error(got)
	}
}

func TestAfterGlobals(t *testing.T) {
	for line, want := range map[string]string{
		"--data-dir /x kubectl -d y": "kubectl -d y",
		"-d=/x --debug server":       "server",
		"--version":                  "--version",
		"":                           "",
	} {
		if got := strings.Join(AfterGlobals(strings.Fields(line)), " "); got != want {
			t.Errorf("%q: got %q", line, got)
		}
	}
}
