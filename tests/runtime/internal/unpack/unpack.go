// Package unpack puts the carried archive in place: checked, whole or not at
// all, once even if two processes start together.
package unpack

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
)

// window is the largest window that the archive is compressed with (--long=25).
const window = 1 << 26

// plugins are the names by which containerd calls bin/cni.
var plugins = []string{"bridge", "host-local", "loopback", "portmap"}

// Into unpacks the zstd tar into `<data>/<hash>` and returns that folder.
func Into(data, hash string, archive io.Reader) (string, error) {
	root := filepath.Join(data, hash)
	if err := os.MkdirAll(data, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(data, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(root, "bin", "k3s")); err == nil {
		return root, nil
	}
	temporary := root + "-tmp"
	for _, dir := range []string{temporary, root} { // half-made ones
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	if err := untar(archive, temporary); err != nil {
		return "", err
	}
	if err := verify(temporary); err != nil {
		return "", err
	}
	if err := os.Rename(temporary, root); err != nil {
		return "", err
	}
	return root, errors.Join(rotate(data, hash), linkPlugins(data, root))
}

func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// untar writes the archive's files, refusing names that lead outside.
func untar(archive io.Reader, dir string) error {
	decoder, err := zstd.NewReader(archive, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer decoder.Close()
	reader := tar.NewReader(decoder)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("archive holds %q", header.Name)
		}
		if err := writeEntry(filepath.Join(dir, header.Name), header, reader); err != nil {
			return err
		}
	}
}

func writeEntry(path string, header *tar.Header, content io.Reader) error {
	if header.Typeflag == tar.TypeDir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return os.Symlink(header.Linkname, path)
	case tar.TypeReg:
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, header.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(file, content)
		return errors.Join(err, file.Sync(), file.Close())
	}
	return fmt.Errorf("archive holds %q of an unknown kind", header.Name)
}

// verify compares every file with bin/.sha256sums.
func verify(dir string) error {
	sums, err := os.Open(filepath.Join(dir, "bin", ".sha256sums"))
	if err != nil {
		return err
	}
	defer sums.Close()
	scanner := bufio.NewScanner(sums)
	for scanner.Scan() {
		want, name, ok := strings.Cut(scanner.Text(), "  ")
		if !ok {
			return fmt.Errorf(".sha256sums: bad line %q", scanner.Text())
		}
		got, err := sum(filepath.Join(dir, "bin", name))
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s: hash %s, want %s", name, got, want)
		}
	}
	return scanner.Err()
}

func sum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// rotate makes `current` lead to the new folder and `previous` to the old one.
func rotate(data, hash string) error {
	current, previous := filepath.Join(data, "current"), filepath.Join(data, "previous")
	if old, err := os.Readlink(current); err == nil && filepath.Base(old) != hash {
		if err := relink(old, previous); err != nil {
			return err
		}
	}
	return relink(filepath.Join(data, hash), current)
}

// linkPlugins fills data/cni with one link per plug-in.
func linkPlugins(data, root string) error {
	if err := os.MkdirAll(filepath.Join(data, "cni"), 0o755); err != nil {
		return err
	}
	for _, name := range append([]string{"cni"}, plugins...) {
		if err := relink(filepath.Join(root, "bin", "cni"), filepath.Join(data, "cni", name)); err != nil {
			return err
		}
	}
	return nil
}

func relink(target, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}
