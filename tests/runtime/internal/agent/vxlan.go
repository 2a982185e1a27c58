package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The overlay's device is flannel's by name, number and port, so that the
// image's modules and a site's firewall meet what k3s brings.
const (
	overlayName = "flannel.1"
	overlayID   = 1
	overlayPort = 8472
	overlayCost = 50 // bytes that vxlan adds to a packet
	peersEvery  = 5 * time.Second
)

// overlay joins the pods' networks of all nodes by vxlan.
type overlay struct {
	node   *Node
	device *netlink.Vxlan
}

// overlayMAC follows from a node's pod network: no node has to tell its own.
func overlayMAC(network *net.IPNet) net.HardwareAddr {
	ip := network.IP.To4()
	return net.HardwareAddr{0x0a, 0x58, ip[0], ip[1], ip[2], ip[3]}
}

// podNetwork is a node's IPv4 range of pod addresses.
func podNetwork(node *corev1.Node) *net.IPNet {
	for _, cidr := range node.Spec.PodCIDRs {
		if _, network, err := net.ParseCIDR(cidr); err == nil && network.IP.To4() != nil {
			return network
		}
	}
	return nil
}

// runOverlay keeps the device's neighbours in step with the cluster's nodes.
func (n *Node) runOverlay(ctx context.Context, own *net.IPNet) error {
	o := &overlay{node: n}
	if err := o.create(own); err != nil {
		return fmt.Errorf("vxlan: %w", err)
	}
	if err := n.masquerade(own); err != nil {
		return err
	}
	// A node may read only itself; kube-proxy's user may read all.
	client, err := n.apiClient("kubeproxy")
	if err != nil {
		return err
	}
	for {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err == nil {
			err = o.apply(nodes.Items)
		}
		if err != nil && ctx.Err() == nil {
			logrus.Warnf("Pod network: %v", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(peersEvery):
		}
	}
}

// create makes the device anew: pods are on the bridge and lose nothing.
func (o *overlay) create(own *net.IPNet) error {
	local := net.ParseIP(o.node.IPs[0])
	parent, err := linkOf(local)
	if err != nil {
		return err
	}
	if old, err := netlink.LinkByName(overlayName); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	o.device = &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: overlayName, HardwareAddr: overlayMAC(own), MTU: parent.Attrs().MTU - overlayCost},
		VxlanId:   overlayID, VtepDevIndex: parent.Attrs().Index, SrcAddr: local, Port: overlayPort, Learning: false,
	}
	if err := netlink.LinkAdd(o.device); err != nil {
		return err
	}
	address := &netlink.Addr{IPNet: &net.IPNet{IP: own.IP, Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrReplace(o.device, address); err != nil {
		return err
	}
	return netlink.LinkSetUp(o.device)
}

// linkOf is the interface that has an address.
func linkOf(ip net.IP) (netlink.Link, error) {
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		if address.IP.Equal(ip) {
			return netlink.LinkByIndex(address.LinkIndex)
		}
	}
	return nil, fmt.Errorf("no interface has the address %s", ip)
}

// apply makes routes and neighbours those of the other nodes, and no others.
func (o *overlay) apply(nodes []corev1.Node) error {
	var wanted []string
	var problems []error
	for i := range nodes {
		network, address := podNetwork(&nodes[i]), internalIP(&nodes[i])
		if nodes[i].Name == o.node.Name || network == nil || address == nil {
			continue
		}
		wanted = append(wanted, network.String())
		problems = append(problems, o.reach(network, address))
	}
	routes, err := netlink.RouteList(o.device, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if route.Gw != nil && !slices.Contains(wanted, route.Dst.String()) {
			problems = append(problems, netlink.RouteDel(&route))
		}
	}
	return errors.Join(problems...)
}

// reach leads one node's pod network through the device to that node.
func (o *overlay) reach(network *net.IPNet, address net.IP) error {
	index, mac := o.device.Attrs().Index, overlayMAC(network)
	fdb := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, IP: address, HardwareAddr: mac}
	arp := &netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: network.IP, HardwareAddr: mac}
	route := &netlink.Route{LinkIndex: index, Scope: netlink.SCOPE_UNIVERSE, Dst: network, Gw: network.IP, Flags: int(netlink.FLAG_ONLINK)}
	return errors.Join(netlink.NeighSet(fdb), netlink.NeighSet(arp), netlink.RouteReplace(route))
}

func internalIP(node *corev1.Node) net.IP {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			if ip := net.ParseIP(address.Address).To4(); ip != nil {
				return ip
			}
		}
	}
	return nil
}

// masquerade hides pods behind the node for everything outside the cluster.
func (n *Node) masquerade(own *net.IPNet) error {
	rule := []string{"POSTROUTING", "-s", own.String(), "!", "-d", n.ClusterCIDR, "-m", "comment", "--comment", "pods of this node", "-j", "MASQUERADE"}
	if exec.Command("iptables", append([]string{"-w", "-t", "nat", "-C"}, rule...)...).Run() == nil {
		return nil
	}
	if out, err := exec.Command("iptables", append([]string{"-w", "-t", "nat", "-A"}, rule...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("iptables: %w: %s", err, out)
	}
	return nil
}
