"""From a laptop to the nodes: where they are, whether they are Ready."""
