package server

import (
	"fmt"
	"net/netip"
	"strings"

	"k3img.test/runtime/internal/config"
)

// network is the cluster's address plan.
type network struct {
	clusterCIDR string
	serviceCIDR string
	serviceIP   string // of the kubernetes service
	dns         []string
	domain      string
}

// readNetwork reads the options and fills in what follows from them.
func readNetwork(options *config.Values) (network, error) {
	plan := network{
		clusterCIDR: strings.Join(options.Split("cluster-cidr"), ","),
		serviceCIDR: strings.Join(options.Split("service-cidr"), ","),
		dns:         options.Split("cluster-dns"),
		domain:      options.Get("cluster-domain"),
	}
	first, _, _ := strings.Cut(plan.serviceCIDR, ",")
	prefix, err := netip.ParsePrefix(first)
	if err != nil {
		return plan, fmt.Errorf("service-cidr: %w", err)
	}
	address := prefix.Masked().Addr().Next()
	plan.serviceIP = address.String()
	for range 9 {
		address = address.Next()
	}
	if len(plan.dns) == 0 {
		plan.dns = []string{address.String()}
	}
	return plan, nil
}
