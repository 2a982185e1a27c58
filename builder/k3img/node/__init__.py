"""One node: its `node.yaml` and the rules for it. Stdlib and PyYAML only: it also runs on the node."""
