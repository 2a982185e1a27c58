package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"k3img.test/runtime/internal/parts"
	"k3img.test/runtime/internal/token"
)

// bootstrapPrefix is where k3s keeps its bootstrap data in the datastore, below
// a hash of the token that encrypts it (k3s: pkg/cluster/storage.go). The
// stand-in keeps the key alone: which token is the cluster's.
const bootstrapPrefix = "/bootstrap/"

const storeLimit = 30 * time.Second

func bootstrapKey(password string) string {
	sum := sha256.Sum256([]byte(password))
	return bootstrapPrefix + hex.EncodeToString(sum[:])[:12]
}

// storeClient is a client of a datastore, etcd or kine.
func storeClient(store parts.Store, dial time.Duration) (*clientv3.Client, error) {
	settings := clientv3.Config{Endpoints: store.Endpoints, DialTimeout: dial, Logger: zap.NewNop()}
	if store.CAFile != "" || store.CertFile != "" {
		info := transport.TLSInfo{TrustedCAFile: store.CAFile, CertFile: store.CertFile, KeyFile: store.KeyFile}
		config, err := info.ClientConfig()
		if err != nil {
			return nil, err
		}
		settings.TLS = config
	}
	return clientv3.New(settings)
}

// withStore calls use with a client of this server's datastore.
func (s *Server) withStore(ctx context.Context, use func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	client, err := storeClient(s.store, storeLimit)
	if err != nil {
		return err
	}
	defer client.Close()
	return use(ctx, client)
}

// create makes a key unless it is there: two servers may start at once. It and
// remove are the only transactions of their kind that kine knows.
func create(ctx context.Context, client *clientv3.Client, key, value string) error {
	_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).Then(clientv3.OpPut(key, value)).Commit()
	return err
}

func remove(ctx context.Context, client *clientv3.Client, key string, revision int64) error {
	_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(clientv3.OpDelete(key)).Else(clientv3.OpGet(key)).Commit()
	return err
}

// checkBootstrap refuses a token that is not the datastore's, and leaves word
// of ours in a new one.
func (s *Server) checkBootstrap(ctx context.Context) error {
	return s.withStore(ctx, func(ctx context.Context, client *clientv3.Client) error {
		found, err := client.Get(ctx, bootstrapPrefix, clientv3.WithPrefix())
		if err != nil {
			return fmt.Errorf("bootstrap data: %w", err)
		}
		own := bootstrapKey(s.token.Password)
		for _, pair := range found.Kvs {
			if string(pair.Key) == own {
				return nil
			}
		}
		if len(found.Kvs) > 0 {
			return errors.New("bootstrap data already found and encrypted with different token")
		}
		return create(ctx, client, own, s.nodeName)
	})
}

// moveBootstrap makes another token the datastore's.
func (s *Server) moveBootstrap(ctx context.Context, fresh token.Token) error {
	return s.withStore(ctx, func(ctx context.Context, client *clientv3.Client) error {
		old := bootstrapKey(s.token.Password)
		found, err := client.Get(ctx, old)
		if err != nil {
			return err
		}
		if err := create(ctx, client, bootstrapKey(fresh.Password), s.nodeName); err != nil {
			return err
		}
		if len(found.Kvs) == 0 {
			return nil
		}
		return remove(ctx, client, old, found.Kvs[0].ModRevision)
	})
}
