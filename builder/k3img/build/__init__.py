"""Plan -> Image: runs mkosi and publishes its results."""
