// Package nodeinfo finds a node's name, address and password.
package nodeinfo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k3img.test/runtime/internal/certs"
	"k3img.test/runtime/internal/token"
)

// PasswordFile is where the node's password lives, as in k3s.
const PasswordFile = "/etc/rancher/node/password"

// Name returns the node's name: the option or the host's name, in lower case.
func Name(option string) (string, error) {
	if option != "" {
		return strings.ToLower(option), nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return strings.ToLower(host), nil
}

// Password returns the node's password, made on first use. Any text counts.
func Password(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(data)) != "" {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	password := token.Random(16)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	return password, certs.WriteFile(file, []byte(password+"\n"), 0o600)
}

// CheckClock refuses a clock that was never set, as k3s does.
func CheckClock(now time.Time) error {
	if now.Year() < 1980 {
		return fmt.Errorf("server time isn't set properly: %v", now)
	}
	return nil
}

// IPs returns the node's addresses: those that were given, else a found one.
func IPs(ctx context.Context, given []string, log func(format string, args ...any)) ([]string, error) {
	if len(given) > 0 {
		return given, nil
	}
	ip, err := WaitForIP(ctx, log)
	if err != nil {
		return nil, err
	}
	return []string{ip.String()}, nil
}

// WaitForIP returns the address of the default route's interface, else the
// first global address of an interface that is up, else it waits for one.
func WaitForIP(ctx context.Context, log func(format string, args ...any)) (net.IP, error) {
	for tries := 0; ; tries++ {
		name, err := defaultInterface("/proc/net/route")
		if err != nil {
			return nil, err
		}
		if ip := firstGlobal(name); ip != nil {
			if name == "" {
				log("No default route and no --node-ip: using %s, the first global address of an interface that is up", ip)
			}
			return ip, nil
		}
		if tries%30 == 0 {
			log("No interface has a global address yet: waiting for one, or set --node-ip")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// HasIP says whether an interface of this host has the address.
func HasIP(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.Equal(ip) {
			return true
		}
	}
	return false
}

// defaultInterface returns the interface of the IPv4 default route with the
// lowest metric, or "".
func defaultInterface(routes string) (string, error) {
	file, err := os.Open(routes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer file.Close()
	return parseRoutes(file)
}

func parseRoutes(routes io.Reader) (string, error) {
	best, bestMetric := "", -1
	scanner := bufio.NewScanner(routes)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		var metric int
		if _, err := fmt.Sscanf(fields[6], "%d", &metric); err != nil {
			continue
		}
		if best == "" || metric < bestMetric {
			best, bestMetric = fields[0], metric
		}
	}
	return best, scanner.Err()
}

// firstGlobal returns the first global unicast address of the interface, or
// of any usable one when no name is given; IPv4 before IPv6.
func firstGlobal(name string) net.IP {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var six net.IP
	for _, link := range interfaces {
		if (name != "" && link.Name != name) || (name == "" && !usable(link)) {
			continue
		}
		addresses, err := link.Addrs()
		if err != nil {
			continue
		}
		for _, address := range addresses {
			network, ok := address.(*net.IPNet)
			if !ok || !network.IP.IsGlobalUnicast() {
				continue
			}
			if network.IP.To4() != nil {
				return network.IP
			}
			if six == nil {
				six = network.IP
			}
		}
	}
	return six
}

// usable leaves out loopback, links that are down and the pods' own bridges.
func usable(link net.Interface) bool {
	if link.Flags&net.FlagUp == 0 || link.Flags&net.FlagLoopback != 0 {
		return false
	}
	for _, prefix := range []string{"cni", "veth", "flannel", "kube-", "docker"} {
		if strings.HasPrefix(link.Name, prefix) {
			return false
		}
	}
	return true
}
