// Package notify tells systemd that the service is ready.
package notify

import (
	"net"
	"os"
	"strings"
)

// Socket is systemd's notification socket, taken out of the environment so
// that containerd and the kubelet, which know it too, cannot speak too early.
type Socket string

// Take removes the socket and the watchdog from the environment.
func Take() Socket {
	socket := os.Getenv("NOTIFY_SOCKET")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	return Socket(socket)
}

// Send sends one state such as "READY=1"; without a socket it does nothing.
func (s Socket) Send(state string) error {
	if s == "" {
		return nil
	}
	name := string(s)
	if rest, ok := strings.CutPrefix(name, "@"); ok {
		name = "\x00" + rest
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
