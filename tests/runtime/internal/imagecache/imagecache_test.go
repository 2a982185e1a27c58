package imagecache

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pending returns the base names of the archives that need an import.
func pending(t *testing.T, dir string) []string {
	t.Helper()
	cache := Open(dir)
	archives, err := cache.Archives()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, archive := range archives {
		if !cache.Unchanged(archive) {
			names = append(names, filepath.Base(archive.Path))
			if err := cache.Done(archive); err != nil {
				t.Fatal(err)
			}
		}
	}
	return names
}

func TestWithoutCacheEverythingIsImported(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "sub", "a.tar.zst"), "x")
	put(t, filepath.Join(dir, "notes.txt"), "x")
	for range 2 {
		if got := pending(t, dir); len(got) != 1 || got[0] != "a.tar.zst" {
			t.Errorf("got %v", got)
		}
	}
}

func TestCacheSkipsUnchanged(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tar")
	put(t, archive, "x")
	put(t, filepath.Join(dir, Name), "") // as made by touch
	if got := pending(t, dir); len(got) != 1 {
		t.Errorf("first: %v", got)
	}
	if got := pending(t, dir); len(got) != 0 {
		t.Errorf("second: %v", got)
	}
	put(t, archive, "longer")
	if got := pending(t, dir); len(got) != 1 {
		t.Errorf("size changed: %v", got)
	}
	if err := os.Chtimes(archive, time.Time{}, time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, dir); len(got) != 1 {
		t.Errorf("time changed: %v", got)
	}
}

func TestMissingFolder(t *testing.T) {
	if got := pending(t, filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("got %v", got)
	}
}
