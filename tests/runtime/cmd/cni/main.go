// Command cni stands where k3s has its CNI plug-ins in one program: under
// each plug-in's name it starts that plug-in from the folder beside it.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err == nil {
		plugin := filepath.Join(filepath.Dir(self), "cni-plugins", filepath.Base(os.Args[0]))
		err = fmt.Errorf("%s: %w", plugin, syscall.Exec(plugin, os.Args, os.Environ()))
	}
	fmt.Fprintf(os.Stderr, "cni: %v\n", err)
	os.Exit(1)
}
