"""A cluster's secrets on the builder: made once, kept, and given to each node as its seed."""
