package unpack

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// pack makes a small archive; the sums are those of the given text.
func pack(t *testing.T, content, summed string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(summed))
	var out bytes.Buffer
	encoder, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	writer := tar.NewWriter(encoder)
	files := map[string]string{"bin/k3s": content, "bin/cni": "plug-in", "bin/.sha256sums": hex.EncodeToString(sum[:]) + "  k3s\n"}
	for name, text := range files {
		if err := writer.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.WriteHeader(&tar.Header{Name: "bin/kubectl", Linkname: "k3s", Typeflag: tar.TypeSymlink}); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := encoder.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestIntoUnpacksOnceAndRotates(t *testing.T) {
	data := t.TempDir()
	for _, hash := range []string{"one", "one", "two"} {
		root, err := Into(data, hash, bytes.NewReader(pack(t, hash, hash)))
		if err != nil {
			t.Fatal(err)
		}
		if target, err := os.Readlink(filepath.Join(root, "bin", "kubectl")); err != nil || target != "k3s" {
			t.Error(target, err)
		}
	}
	for name, want := range map[string]string{"current": "two", "previous": "one"} {
		if target, err := os.Readlink(filepath.Join(data, name)); err != nil || filepath.Base(target) != want {
			t.Errorf("%s leads to %s %v", name, target, err)
		}
	}
	if target, err := filepath.EvalSymlinks(filepath.Join(data, "cni", "host-local")); err != nil || !strings.HasSuffix(target, "two/bin/cni") {
		t.Error(target, err)
	}
}

func TestIntoRefusesAWrongSum(t *testing.T) {
	data := t.TempDir()
	if _, err := Into(data, "h", bytes.NewReader(pack(t, "changed", "original"))); err == nil {
		t.Fatal("a changed file must be refused")
	}
	if _, err := os.Stat(filepath.Join(data, "h")); err == nil {
		t.Error("nothing may be left in place")
	}
}
