//go:build ignore

// Command cni is several CNI plug-ins in one program, as k3s has them: the name that it is called by
// says which one it is.
//
// It is compiled inside a copy of the plug-ins' own module (ci/runtime), in which they are made
// packages that can be imported; here, where they are programs, it is left out.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	hostlocal "github.com/containernetworking/plugins/plugins/ipam/host-local"
	bridge "github.com/containernetworking/plugins/plugins/main/bridge"
	loopback "github.com/containernetworking/plugins/plugins/main/loopback"
	portmap "github.com/containernetworking/plugins/plugins/meta/portmap"
)

func main() {
	plugins := map[string]func(){
		"bridge":     bridge.Main,
		"host-local": hostlocal.Main,
		"loopback":   loopback.Main,
		"portmap":    portmap.Main,
	}
	name := filepath.Base(os.Args[0])
	plugin, known := plugins[name]
	if !known {
		fmt.Fprintf(os.Stderr, "cni: there is no plug-in %q here\n", name)
		os.Exit(1)
	}
	plugin()
}
