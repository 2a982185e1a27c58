package agent

import (
	"context"
	"fmt"
	"os"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/sirupsen/logrus"

	"k3img.test/runtime/internal/imagecache"
)

// pinned keeps the kubelet's garbage collection away from imported images.
var pinned = map[string]string{"io.cri-containerd.pinned": "pinned"}

// importImages imports every archive of agent/images that is new or changed.
// A bad archive is logged and skipped: the others still count.
func (n *Node) importImages(ctx context.Context, client *containerd.Client) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	cache := imagecache.Open(n.Dir("images"))
	archives, err := cache.Archives()
	if err != nil {
		return err
	}
	existing, err := client.ImageService().List(ctx)
	if err != nil {
		return err
	}
	if len(existing) == 0 { // the store is new or was wiped
		cache.Forget()
	}
	for _, archive := range archives {
		if cache.Unchanged(archive) {
			logrus.Infof("Image archive %s is unchanged, not imported again", archive.Path)
			continue
		}
		started := time.Now()
		names, err := n.importArchive(ctx, client, archive.Path)
		if err != nil {
			logrus.Errorf("Failed to import images from %s: %v", archive.Path, err)
			continue
		}
		logrus.Infof("Imported %d images from %s in %s: %v", len(names), archive.Path, time.Since(started).Round(time.Millisecond), names)
		if err := cache.Done(archive); err != nil {
			logrus.Warnf("Failed to write %s: %v", imagecache.Name, err)
		}
	}
	return nil
}

// importArchive imports one archive and unpacks its images.
func (n *Node) importArchive(ctx context.Context, client *containerd.Client, path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stream, err := compression.DecompressStream(file)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	images, err := client.Import(ctx, stream, containerd.WithImageLabels(pinned))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, image := range images {
		if err := containerd.NewImage(client, image).Unpack(ctx, n.snapshotter()); err != nil {
			return names, fmt.Errorf("unpacking %s: %w", image.Name, err)
		}
		names = append(names, image.Name)
	}
	return names, nil
}
