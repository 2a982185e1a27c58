package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

const (
	manifestInterval = 15 * time.Second
	retryInterval    = 3 * time.Second // after a failure: a kind may just be on its way
)

// deployer applies the files of server/manifests.
type deployer struct {
	dir     string
	skip    []string // names given to --disable
	client  dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	applied map[string]appliedFile
}

type appliedFile struct {
	modified time.Time
	sum      [sha256.Size]byte
}

// deployManifests applies every manifest now and then those that change.
func (s *Server) deployManifests(ctx context.Context) {
	config, err := s.clientConfig()
	if err != nil {
		logrus.Errorf("Manifests are not applied: %v", err)
		return
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		logrus.Errorf("Manifests are not applied: %v", err)
		return
	}
	finder, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		logrus.Errorf("Manifests are not applied: %v", err)
		return
	}
	for _, name := range s.Options.Split("disable") {
		logrus.Infof("Disabled %s: not present in the stand-in", name)
	}
	d := &deployer{
		dir: s.dir("manifests"), skip: s.Options.Split("disable"), client: client, applied: map[string]appliedFile{},
		mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(finder)),
	}
	for {
		wait := manifestInterval
		if !d.pass(ctx) {
			wait = retryInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// pass applies the files that are new or changed since the last pass; false
// when one of them failed.
func (d *deployer) pass(ctx context.Context) (ok bool) {
	ok = true
	files, err := d.files()
	if err != nil {
		logrus.Errorf("Failed to read %s: %v", d.dir, err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			continue
		}
		old, known := d.applied[file]
		if known && old.modified.Equal(info.ModTime()) {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			logrus.Errorf("Failed to read manifest %s: %v", file, err)
			continue
		}
		sum := sha256.Sum256(data)
		if !known || old.sum != sum {
			if err := d.apply(ctx, data); err != nil {
				if ctx.Err() == nil {
					logrus.Errorf("Failed to apply manifest %s: %v", file, err)
				}
				ok = false
				continue
			}
			logrus.Infof("Applied manifest %s", file)
		}
		d.applied[file] = appliedFile{modified: info.ModTime(), sum: sum}
	}
	return ok
}

// files lists the manifests in order; a linked folder directly below the
// manifests' folder is followed.
func (d *deployer) files() ([]string, error) {
	var found []string
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		path := filepath.Join(d.dir, entry.Name())
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		if !info.IsDir() {
			found = append(found, path)
			continue
		}
		walkErr := filepath.WalkDir(path+"/", func(file string, item fs.DirEntry, err error) error {
			if err == nil && !item.IsDir() {
				found = append(found, file)
			}
			return err
		})
		if walkErr != nil {
			return found, walkErr
		}
	}
	found = slices.DeleteFunc(found, func(file string) bool { return !d.wanted(file) })
	slices.Sort(found)
	return found, nil
}

// wanted leaves out other files, those with a `.skip` file beside them and
// those that --disable names.
func (d *deployer) wanted(file string) bool {
	extension := filepath.Ext(file)
	if extension != ".yaml" && extension != ".yml" && extension != ".json" {
		return false
	}
	if _, err := os.Stat(file + ".skip"); err == nil {
		return false
	}
	return !slices.Contains(d.skip, strings.TrimSuffix(filepath.Base(file), extension))
}

// apply applies every object of a file.
func (d *deployer) apply(ctx context.Context, data []byte) error {
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	var problems []error
	for {
		var content map[string]any
		err := decoder.Decode(&content)
		if errors.Is(err, io.EOF) {
			return errors.Join(problems...)
		}
		if err != nil {
			return errors.Join(append(problems, err)...)
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{Object: content}
		if object.IsList() {
			err = object.EachListItem(func(item runtime.Object) error {
				return d.applyObject(ctx, item.(*unstructured.Unstructured))
			})
		} else {
			err = d.applyObject(ctx, object)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
}

// applyObject applies one object by server-side apply.
func (d *deployer) applyObject(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	mapping, err := d.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) { // perhaps a kind that was defined just now
		d.mapper.Reset()
		mapping, err = d.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return err
	}
	var target dynamic.ResourceInterface = d.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		target = d.client.Resource(mapping.Resource).Namespace(namespace)
	}
	_, err = target.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "deploy@k3s", Force: true})
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind.Kind, object.GetName(), err)
	}
	return nil
}
