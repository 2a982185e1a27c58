"""Virtual machines: a specification becomes QEMU arguments, a running machine, and a channel into it."""
