"""k3img turns one YAML profile into an immutable OS image with k3s, and proves in QEMU that it works."""

__version__ = "0.1.0"
