package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"k3img.test/runtime/internal/agent"
	"k3img.test/runtime/internal/parts"
)

// readyLimit is how long k3s waits for the API server.
const readyLimit = 15 * time.Minute

// startAPI runs the API server; the channel closes when it has ended.
func (s *Server) startAPI(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	args := s.apiArgs()
	go func() {
		defer close(done)
		err := parts.APIServer(ctx, args, parts.Front{Listener: s.front.listener, Wrap: s.ownPaths, TakeOver: s.front.takeOver})
		if ctx.Err() == nil {
			s.fail("kube-apiserver", ended(err))
		}
	}()
	return done
}

func (s *Server) apiArgs() []string {
	args := map[string]string{
		"advertise-address":                  s.advertiseAddress(),
		"allow-privileged":                   "true",
		"anonymous-auth":                     "false",
		"authorization-mode":                 "Node,RBAC",
		"enable-admission-plugins":           "NodeRestriction",
		"enable-aggregator-routing":          "true",
		"profiling":                          "false",
		"cert-dir":                           s.dir("tls", "temporary-certs"),
		"tls-cert-file":                      s.dir("tls", "serving-kube-apiserver.crt"),
		"tls-private-key-file":               s.dir("tls", "serving-kube-apiserver.key"),
		"client-ca-file":                     s.dir("tls", "client-ca.crt"),
		"kubelet-certificate-authority":      s.dir("tls", "server-ca.crt"),
		"kubelet-client-certificate":         s.dir("tls", "client-kube-apiserver.crt"),
		"kubelet-client-key":                 s.dir("tls", "client-kube-apiserver.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"proxy-client-cert-file":             s.dir("tls", "client-auth-proxy.crt"),
		"proxy-client-key-file":              s.dir("tls", "client-auth-proxy.key"),
		"requestheader-client-ca-file":       s.dir("tls", "request-header-ca.crt"),
		"requestheader-allowed-names":        "system:auth-proxy",
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		"service-account-issuer":             "https://kubernetes.default.svc." + s.network.domain,
		"api-audiences":                      "https://kubernetes.default.svc." + s.network.domain + ",k3s",
		"service-account-key-file":           s.dir("tls", "service.key"),
		"service-account-signing-key-file":   s.dir("tls", "service.key"),
		"service-cluster-ip-range":           s.network.serviceCIDR,
		"service-node-port-range":            s.Options.Get("service-node-port-range"),
		"storage-backend":                    "etcd3",
		"etcd-servers":                       strings.Join(s.store.Endpoints, ","),
	}
	for flag, file := range map[string]string{"etcd-cafile": s.store.CAFile, "etcd-certfile": s.store.CertFile, "etcd-keyfile": s.store.KeyFile} {
		if file != "" {
			args[flag] = file
		}
	}
	return parts.Flags(args, s.Options.List("kube-apiserver-arg"), logrus.Warnf)
}

// startControllers starts the controller manager and the scheduler.
func (s *Server) startControllers(ctx context.Context) {
	elect := fmt.Sprint(s.store.Shared)
	if s.store.Shared {
		// One that leads and is told to stop would end the whole process with
		// an error: it runs on until the process ends.
		ctx = context.WithoutCancel(ctx)
	}
	kubeconfig := s.dir("cred", "controller.kubeconfig")
	controllerArgs := parts.Flags(map[string]string{
		"kubeconfig": kubeconfig, "authentication-kubeconfig": kubeconfig, "authorization-kubeconfig": kubeconfig,
		"bind-address": "127.0.0.1", "profiling": "false", "leader-elect": elect,
		"allocate-node-cidrs": "true", "cluster-cidr": s.network.clusterCIDR, "service-cluster-ip-range": s.network.serviceCIDR,
		"configure-cloud-routes": "false", "use-service-account-credentials": "true",
		"root-ca-file": s.dir("tls", "server-ca.crt"), "service-account-private-key-file": s.dir("tls", "service.key"),
		"cluster-signing-kube-apiserver-client-cert-file": s.dir("tls", "client-ca.nochain.crt"), "cluster-signing-kube-apiserver-client-key-file": s.dir("tls", "client-ca.key"),
		"cluster-signing-kubelet-client-cert-file": s.dir("tls", "client-ca.nochain.crt"), "cluster-signing-kubelet-client-key-file": s.dir("tls", "client-ca.key"),
		"cluster-signing-kubelet-serving-cert-file": s.dir("tls", "server-ca.nochain.crt"), "cluster-signing-kubelet-serving-key-file": s.dir("tls", "server-ca.key"),
		"cluster-signing-legacy-unknown-cert-file": s.dir("tls", "server-ca.nochain.crt"), "cluster-signing-legacy-unknown-key-file": s.dir("tls", "server-ca.key"),
	}, s.Options.List("kube-controller-manager-arg"), logrus.Warnf)
	s.startPart(ctx, "kube-controller-manager", func() error { return parts.ControllerManager(ctx, controllerArgs) })
	if s.Options.Bool("disable-scheduler") {
		return
	}
	kubeconfig = s.dir("cred", "scheduler.kubeconfig")
	schedulerArgs := parts.Flags(map[string]string{
		"kubeconfig": kubeconfig, "authentication-kubeconfig": kubeconfig, "authorization-kubeconfig": kubeconfig,
		"bind-address": "127.0.0.1", "profiling": "false", "leader-elect": elect,
	}, s.Options.List("kube-scheduler-arg"), logrus.Warnf)
	s.startPart(ctx, "kube-scheduler", func() error { return parts.Scheduler(ctx, schedulerArgs) })
}

// startPart runs one part in the background; its end ends the server.
func (s *Server) startPart(ctx context.Context, part string, run func() error) {
	logrus.Infof("Starting %s", part)
	go func() {
		err := run()
		if ctx.Err() == nil {
			s.fail(part, ended(err))
		}
	}()
}

// ended makes an error of a part's end, which should not have come.
func ended(err error) error {
	if err == nil {
		return errors.New("ended without an error")
	}
	return err
}

// clientConfig is the supervisor's own access to the API.
func (s *Server) clientConfig() (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", s.dir("cred", "supervisor.kubeconfig"))
}

// waitReady waits until the API server says that it is ready.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	client, err := s.client()
	if err != nil {
		return err
	}
	for {
		err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w", readyLimit, err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// labelNode gives this server's node its role once it is registered, and
// puts back the labels of the configuration, as k3s does at every start.
func (s *Server) labelNode(ctx context.Context) {
	client, err := s.client()
	if err != nil {
		logrus.Errorf("Failed to label the node: %v", err)
		return
	}
	agent.Patch(ctx, client, s.nodeName, s.nodeMetadata())
}
