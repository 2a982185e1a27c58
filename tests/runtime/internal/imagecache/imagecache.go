// Package imagecache decides which image archives have to be imported again.
// As in k3s, the memory exists only when somebody made the file .cache.json.
package imagecache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Name is the file that switches the memory on.
const Name = ".cache.json"

var extensions = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.bz2", ".tbz", ".tar.lz4", ".tar.xz"}

// Archive is one file to import.
type Archive struct {
	Path     string    `json:"-"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modTime"`
}

// Cache remembers what was imported from a folder.
type Cache struct {
	dir     string
	enabled bool
	seen    map[string]Archive
}

// Open reads a folder's memory; a folder without the file remembers nothing.
func Open(dir string) *Cache {
	cache := &Cache{dir: dir, seen: map[string]Archive{}}
	data, err := os.ReadFile(filepath.Join(dir, Name))
	if err != nil {
		return cache
	}
	cache.enabled = true
	if json.Unmarshal(data, &cache.seen) != nil { // empty when just touched, or damaged: import all
		cache.seen = map[string]Archive{}
	}
	return cache
}

// Archives lists the folder's image archives in order, following symlinks.
func (c *Cache) Archives() ([]Archive, error) {
	var found []Archive
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path == c.dir {
				return fs.SkipAll
			}
			return err
		}
		if entry.IsDir() || !IsArchive(path) {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		found = append(found, Archive{Path: path, Size: info.Size(), Modified: info.ModTime()})
		return nil
	})
	sort.Slice(found, func(i, j int) bool { return found[i].Path < found[j].Path })
	return found, err
}

// IsArchive says whether a name is that of an image archive.
func IsArchive(path string) bool {
	for _, extension := range extensions {
		if strings.HasSuffix(path, extension) {
			return true
		}
	}
	return false
}

// Unchanged says whether an archive was imported as it is now.
func (c *Cache) Unchanged(archive Archive) bool {
	old, ok := c.seen[archive.Path]
	return c.enabled && ok && old.Size == archive.Size && old.Modified.Equal(archive.Modified)
}

// Done remembers an archive and writes the memory, if there is one.
func (c *Cache) Done(archive Archive) error {
	if !c.enabled {
		return nil
	}
	c.seen[archive.Path] = archive
	data, err := json.MarshalIndent(c.seen, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, Name)
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Forget empties the memory: for a store that lost its images.
func (c *Cache) Forget() {
	c.seen = map[string]Archive{}
}
