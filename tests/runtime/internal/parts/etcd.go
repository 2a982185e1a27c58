package parts

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// closeLimit bounds how long etcd may wait for its clients when it stops.
const closeLimit = 2 * time.Second

// Etcd starts an embedded etcd from its configuration file and waits until it
// answers. The member stops when ctx ends; failed reports any other end.
func Etcd(ctx context.Context, configFile string) (failed <-chan error, wait func(), err error) {
	config, err := embed.ConfigFromFile(configFile)
	if err != nil {
		return nil, nil, fmt.Errorf("etcd: %w", err)
	}
	member, err := embed.StartEtcd(config)
	if err != nil {
		return nil, nil, fmt.Errorf("etcd: %w", err)
	}
	slow := time.NewTicker(time.Minute)
	defer slow.Stop()
waiting:
	for {
		select {
		case <-member.Server.ReadyNotify():
			break waiting
		case err := <-member.Err():
			return nil, nil, fmt.Errorf("etcd: %w", err)
		case <-ctx.Done():
			member.Close()
			return nil, nil, ctx.Err()
		case <-slow.C:
			fmt.Println("Waiting for etcd: no quorum yet")
		}
	}
	closed := make(chan struct{})
	go func() {
		<-ctx.Done()
		member.Close()
		close(closed)
	}()
	wait = func() {
		select {
		case <-closed:
		case <-time.After(closeLimit): // the log is on disk: nothing is lost
		}
	}
	return member.Err(), wait, nil
}
