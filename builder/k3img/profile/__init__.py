"""Profiles: YAML in, a complete `Profile` or every `Problem` out. Starts no program, writes no file."""
