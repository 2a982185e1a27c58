"""The k3s artifact: where a release comes from, its lock, its content, its options."""
