"""What runs on the node. Standard library, PyYAML and `k3img.node` only."""
