package parts

import (
	"context"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"k3img.test/runtime/internal/join"
)

// closeLimit bounds how long etcd may wait for its clients when it stops.
const closeLimit = 2 * time.Second

// EtcdMember is a running embedded etcd.
type EtcdMember struct {
	etcd   *embed.Etcd
	closed chan struct{}
}

// Etcd starts an embedded etcd from its configuration file and waits until it
// answers as a voter: a learner is promoted as soon as it has caught up. The
// member stops when ctx ends. alone makes it the only member of a new cluster
// with the data that it has.
func Etcd(ctx context.Context, configFile string, alone bool) (*EtcdMember, error) {
	config, err := embed.ConfigFromFile(configFile)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	config.ForceNewCluster = alone
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	member := &EtcdMember{etcd: etcd, closed: make(chan struct{})}
	if err := member.ready(ctx); err != nil {
		etcd.Close()
		return nil, err
	}
	go func() {
		<-ctx.Done()
		etcd.Close()
		close(member.closed)
	}()
	return member, nil
}

func (m *EtcdMember) ready(ctx context.Context) error {
	slow := time.NewTicker(time.Minute)
	defer slow.Stop()
	ready, promote := m.etcd.Server.ReadyNotify(), (<-chan time.Time)(nil)
	for {
		select {
		case <-ready:
			if !m.etcd.Server.IsLearner() {
				return nil
			}
			ready, promote = nil, time.After(0)
		case <-promote:
			if _, err := m.etcd.Server.PromoteMember(ctx, uint64(m.etcd.Server.MemberID())); err != nil {
				logrus.Infof("Waiting to become a voting etcd member: %v", err)
			}
			if !m.etcd.Server.IsLearner() {
				return nil
			}
			promote = time.After(time.Second)
		case err := <-m.etcd.Err():
			return fmt.Errorf("etcd: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-slow.C:
			logrus.Info("Waiting for etcd: no quorum yet")
		}
	}
}

// Failed reports an end that was not asked for.
func (m *EtcdMember) Failed() <-chan error { return m.etcd.Err() }

// Wait returns when the member has ended, or after a moment: its log is on
// disk, nothing is lost.
func (m *EtcdMember) Wait() {
	select {
	case <-m.closed:
	case <-time.After(closeLimit):
	}
}

// Members lists the cluster's members.
func (m *EtcdMember) Members() []join.Member {
	var found []join.Member
	for _, item := range m.etcd.Server.Cluster().Members() {
		found = append(found, join.Member{ID: uint64(item.ID), Name: item.Name, PeerURL: item.PeerURLs, Learner: item.IsLearner})
	}
	return found
}

// Add lets a new member in as a learner.
func (m *EtcdMember) Add(ctx context.Context, peerURL string) error {
	urls, err := types.NewURLs([]string{peerURL})
	if err != nil {
		return err
	}
	now := time.Now()
	_, err = m.etcd.Server.AddMember(ctx, *membership.NewMemberAsLearner("", urls, "", &now))
	return err
}

// Remove takes a member out by its name; one that is gone is no error.
func (m *EtcdMember) Remove(ctx context.Context, name string) error {
	for _, item := range m.Members() {
		if item.Name == name {
			_, err := m.etcd.Server.RemoveMember(ctx, item.ID)
			return err
		}
	}
	return nil
}

// Readdress tells the cluster that a member's peers reach it elsewhere now.
func (m *EtcdMember) Readdress(ctx context.Context, name, peerURL string) error {
	for _, item := range m.etcd.Server.Cluster().Members() {
		if item.Name == name {
			item.PeerURLs = []string{peerURL}
			_, err := m.etcd.Server.UpdateMember(ctx, *item)
			return err
		}
	}
	return fmt.Errorf("etcd has no member %s", name)
}
