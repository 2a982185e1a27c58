package parts

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/mysql"  // datastore driver
	_ "github.com/k3s-io/kine/pkg/drivers/nats"   // datastore driver
	_ "github.com/k3s-io/kine/pkg/drivers/pgsql"  // datastore driver
	_ "github.com/k3s-io/kine/pkg/drivers/remote" // datastore driver
	"github.com/k3s-io/kine/pkg/drivers/sqlite"
	"github.com/k3s-io/kine/pkg/server"
	kinetls "github.com/k3s-io/kine/pkg/tls"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Store is how the API server reaches its datastore.
type Store struct {
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	// Shared says that other servers may use the same store: controllers must elect a leader.
	Shared bool
}

// SQLiteParams are the parameters that k3s gives to its default database.
var SQLiteParams = sqlite.DefaultParams

const (
	// etcdVersion is what kine claims to be: one that sends watch progress.
	etcdVersion    = "3.6.11"
	notifyInterval = 5 * time.Second
	maxMessage     = 16 << 20
)

// Kine opens a datastore endpoint and serves it as etcd on a unix socket. An
// etcd endpoint is returned as it is. After ctx ends, wait returns when the
// store is closed.
func Kine(ctx context.Context, endpoint, socket string, tls kinetls.Config) (store Store, wait func(), err error) {
	wg := &sync.WaitGroup{}
	backendCtx, cancel := context.WithCancel(context.Background())
	shared, backend, err := drivers.New(backendCtx, wg, &drivers.Config{
		Endpoint:             endpoint,
		BackendTLSConfig:     tls,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{MaxIdle: 20, MaxIdleTime: 2 * time.Minute},
		CompactTimeout:       5 * time.Second,
		CompactMinRetain:     1000,
		CompactBatchSize:     1000,
		PollBatchSize:        500,
		PollInterval:         time.Second,
	})
	if err != nil {
		cancel()
		return Store{}, nil, fmt.Errorf("opening the datastore: %w", err)
	}
	if backend == nil {
		cancel()
		return Store{Endpoints: strings.Split(endpoint, ","), CAFile: tls.CAFile, CertFile: tls.CertFile, KeyFile: tls.KeyFile, Shared: shared}, func() {}, nil
	}
	if err := backend.Start(backendCtx); err != nil {
		cancel()
		return Store{}, nil, fmt.Errorf("starting the datastore: %w", err)
	}
	closed, err := serveKine(ctx, backend, socket)
	if err != nil {
		cancel()
		return Store{}, nil, err
	}
	wait = func() {
		<-closed
		cancel()
		wg.Wait()
	}
	return Store{Endpoints: []string{"unix://" + socket}, Shared: shared}, wait, nil
}

// serveKine answers etcd's protocol on a socket until ctx ends.
func serveKine(ctx context.Context, backend server.Backend, socket string) (<-chan struct{}, error) {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, err
	}
	rpc := grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Hour, Timeout: 20 * time.Second}),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(1<<31-1),
	)
	server.New(backend, "unix", notifyInterval, etcdVersion).Register(rpc)
	closed := make(chan struct{})
	go func() {
		<-ctx.Done()
		force := time.AfterFunc(time.Second, rpc.Stop)
		rpc.GracefulStop()
		force.Stop()
		close(closed)
	}()
	go func() { _ = rpc.Serve(listener) }()
	return closed, nil
}
