package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"k3img.test/runtime/internal/config"
	"k3img.test/runtime/internal/nodeinfo"
)

// Snapshot is the command `etcd-snapshot save|ls|delete`.
func Snapshot(args []string) error {
	options, err := config.Load(config.Snapshot, args)
	if err != nil {
		return err
	}
	verb := "save"
	if len(options.Rest) > 0 {
		verb = options.Rest[0]
	}
	dataDir := options.Get("data-dir")
	dir := options.Get("etcd-snapshot-dir")
	if dir == "" {
		dir = filepath.Join(dataDir, "server", "db", "snapshots")
	}
	switch verb {
	case "save":
		return saveSnapshot(options, dataDir, dir)
	case "ls", "list":
		return listSnapshots(dir)
	case "delete":
		for _, name := range options.Rest[1:] {
			if err := os.Remove(filepath.Join(dir, filepath.Base(name))); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("etcd-snapshot %s is not part of the stand-in", verb)
}

// saveSnapshot copies the running etcd's data into a file.
func saveSnapshot(options *config.Values, dataDir, dir string) error {
	client, err := storeClient(localEtcd(filepath.Join(dataDir, "server")), 10*time.Second)
	if err != nil {
		return fmt.Errorf("no etcd on this server: %w", err)
	}
	defer client.Close()
	node, err := nodeinfo.Name(options.Get("node-name"))
	if err != nil {
		return err
	}
	prefix := options.Get("name")
	if prefix == "" {
		prefix = "on-demand"
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", prefix, node, time.Now().Unix()))
	if err := writeSnapshot(client, path); err != nil {
		return err
	}
	fmt.Printf("Snapshot %s saved.\n", filepath.Base(path))
	return nil
}

func writeSnapshot(client *clientv3.Client, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	stream, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, stream)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".part"))
	}
	return os.Rename(path+".part", path)
}

func listSnapshots(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(table, "Name\tLocation\tSize\tCreated")
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || entry.IsDir() {
			continue
		}
		fmt.Fprintf(table, "%s\tfile://%s\t%d\t%s\n", entry.Name(), filepath.Join(dir, entry.Name()), info.Size(), info.ModTime().UTC().Format(time.RFC3339))
	}
	return table.Flush()
}
