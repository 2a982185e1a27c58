// Command testimages writes the container images that k3img's tests run, as
// one OCI archive: a pause image and a small web server, both busybox.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

// pauseNames are the pause image's names: one for tests, and those that an
// image which was not made for tests asks for by default.
var pauseNames = []string{"k3img.test/pause:1", "docker.io/rancher/mirrored-pause:3.10.2"}

const webName = "k3img.test/web:1"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

// builder collects the blobs of an archive.
type builder struct {
	arch  string
	blobs map[string][]byte
	index []descriptor
}

func main() {
	busybox := flag.String("busybox", "", "a static busybox of the architecture")
	arch := flag.String("arch", "amd64", "the images' architecture")
	out := flag.String("out", "", "the archive to write")
	flag.Parse()
	if err := run(*busybox, *arch, *out); err != nil {
		fmt.Fprintln(os.Stderr, "testimages:", err)
		os.Exit(1)
	}
}

func run(busybox, arch, out string) error {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	b := &builder{arch: arch, blobs: map[string][]byte{}}
	base := map[string]file{"bin/busybox": {data: program, mode: 0o755}}
	for _, name := range []string{"sh", "cat", "echo", "env", "httpd", "id", "ls", "mount", "nslookup", "ping", "sleep", "wget"} {
		base["bin/"+name] = file{link: "/bin/busybox"}
	}
	pause := clone(base)
	pause["pause"] = file{data: []byte("#!/bin/sh\ntrap 'exit 0' TERM INT\nwhile :; do sleep 3600 & wait $!; done\n"), mode: 0o755}
	if err := b.add(pause, []string{"/pause"}, pauseNames...); err != nil {
		return err
	}
	web := clone(base)
	web["www/index.html"] = file{data: []byte("k3img test page\n"), mode: 0o644}
	web["tmp"] = file{dir: true, mode: 0o1777}
	if err := b.add(web, []string{"/bin/httpd", "-f", "-v", "-p", "8080", "-h", "/www"}, webName); err != nil {
		return err
	}
	data, err := b.archive()
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}

// file is one entry of an image.
type file struct {
	data []byte
	link string
	dir  bool
	mode int64
}

func clone(files map[string]file) map[string]file {
	out := map[string]file{}
	for name, f := range files {
		out[name] = f
	}
	return out
}

// add adds one image under its names.
func (b *builder) add(files map[string]file, command []string, names ...string) error {
	layer, err := writeTar(files)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": b.arch, "os": "linux", "created": time.Unix(0, 0).UTC(),
		"config": map[string]any{"Entrypoint": command, "Env": []string{"PATH=/bin"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": b.blob("application/vnd.oci.image.config.v1+json", config),
		"layers": []descriptor{b.blob("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		entry := b.blob("application/vnd.oci.image.manifest.v1+json", manifest)
		entry.Platform = map[string]string{"architecture": b.arch, "os": "linux"}
		entry.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:]}
		b.index = append(b.index, entry)
	}
	return nil
}

// blob keeps data under its digest.
func (b *builder) blob(mediaType string, data []byte) descriptor {
	name := digest(data)
	b.blobs[name] = data
	return descriptor{MediaType: mediaType, Digest: name, Size: len(data)}
}

// archive writes the whole OCI layout.
func (b *builder) archive() ([]byte, error) {
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": b.index})
	if err != nil {
		return nil, err
	}
	files := map[string]file{
		"oci-layout": {data: []byte(`{"imageLayoutVersion":"1.0.0"}`), mode: 0o644},
		"index.json": {data: index, mode: 0o644},
	}
	for name, data := range b.blobs {
		files["blobs/sha256/"+strings.TrimPrefix(name, "sha256:")] = file{data: data, mode: 0o644}
	}
	return writeTar(files)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// writeTar writes entries in order of their names, with no date.
func writeTar(files map[string]file) ([]byte, error) {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	for _, name := range names {
		f := files[name]
		header := &tar.Header{Name: name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		switch {
		case f.link != "":
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.link, 0o777
		case f.dir:
			header.Typeflag, header.Name = tar.TypeDir, name+"/"
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
