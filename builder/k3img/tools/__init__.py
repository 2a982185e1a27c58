"""Thin wrappers over programs of others: where they are, which version, how to call them."""
