"""Options of k3s v1.36: name, what it takes, whose it is, `equal` if all servers must agree on it.

From pkg/cli/cmds/{server,agent}.go and pkg/daemons/config/types.go (CriticalControlArgs) of k3s.
"""

TABLE = """
advertise-address                 text     server
advertise-port                    integer  server
agent-token                       text     server
agent-token-file                  text     server
airgap-extra-registry             list     both
alsologtostderr                   bool     both
bind-address                      text     server
cluster-cidr                      list     server equal
cluster-dns                       list     server equal
cluster-domain                    text     server equal
cluster-init                      bool     server
cluster-reset                     bool     server
cluster-reset-restore-path        text     server
config                            text     both
container-runtime-endpoint        text     both
data-dir                          text     both
datastore-cafile                  text     server
datastore-certfile                text     server
datastore-endpoint                text     server
datastore-keyfile                 text     server
debug                             bool     both
default-local-storage-path        text     server
default-runtime                   text     both
disable                           list     server
disable-agent                     bool     server
disable-apiserver                 bool     server
disable-apiserver-lb              bool     both
disable-cloud-controller          bool     server equal
disable-controller-manager        bool     server
disable-default-registry-endpoint bool     both
disable-etcd                      bool     server
disable-helm-controller           bool     server equal
disable-kube-proxy                bool     server
disable-network-policy            bool     server equal
disable-scheduler                 bool     server
docker                            bool     both
egress-selector-mode              text     server equal
embedded-registry                 bool     server equal
enable-pprof                      bool     server
etcd-arg                          list     server
etcd-disable-snapshots            bool     server
etcd-expose-metrics               bool     server
etcd-s3                           bool     server
etcd-s3-access-key                text     server
etcd-s3-bucket                    text     server
etcd-s3-bucket-lookup-type        text     server
etcd-s3-config-secret             text     server
etcd-s3-endpoint                  text     server
etcd-s3-endpoint-ca               text     server
etcd-s3-folder                    text     server
etcd-s3-insecure                  bool     server
etcd-s3-proxy                     text     server
etcd-s3-region                    text     server
etcd-s3-retention                 integer  server
etcd-s3-secret-key                text     server
etcd-s3-session-token             text     server
etcd-s3-skip-ssl-verify           bool     server
etcd-s3-timeout                   duration server
etcd-snapshot-compress            bool     server
etcd-snapshot-dir                 text     server
etcd-snapshot-name                text     server
etcd-snapshot-reconcile-interval  duration server
etcd-snapshot-retention           integer  server
etcd-snapshot-schedule-cron       text     server
flannel-backend                   text     server equal
flannel-cni-conf                  text     both
flannel-conf                      text     both
flannel-external-ip               bool     server equal
flannel-iface                     text     both
flannel-ipv6-masq                 bool     server equal
helm-controller-arg               list     server
helm-job-image                    text     server
https-listen-port                 integer  server
image-credential-provider-bin-dir text     both
image-credential-provider-config  text     both
image-service-endpoint            text     both
kine-tls                          bool     server
kube-apiserver-arg                list     server
kube-cloud-controller-manager-arg list     server
kube-controller-manager-arg       list     server
kube-proxy-arg                    list     both
kube-scheduler-arg                list     server
kubelet-arg                       list     both
lb-server-port                    integer  both
log                               text     both
node-external-dns                 list     both
node-external-ip                  list     both
node-internal-dns                 list     both
node-ip                           list     both
node-label                        list     both
node-name                         text     both
node-taint                        list     both
nonroot-devices                   bool     both
pause-image                       text     both
prefer-bundled-bin                bool     both
private-registry                  text     both
protect-kernel-defaults           bool     both
resolv-conf                       text     both
rootless                          bool     both
secrets-encryption                bool     server equal
secrets-encryption-provider       text     server equal
selinux                           bool     both
server                            text     both
service-cidr                      list     server equal
service-node-port-range           text     server
servicelb-namespace               text     server
snapshotter                       text     both
supervisor-metrics                bool     server equal
system-default-registry           text     server
tls-san                           list     server
tls-san-security                  bool     server
token                             text     both
token-file                        text     both
v                                 integer  both
vmodule                           text     both
vpn-auth                          text     both
vpn-auth-file                     text     both
with-node-id                      bool     both
write-kubeconfig                  text     server
write-kubeconfig-group            text     server
write-kubeconfig-mode             text     server
"""
