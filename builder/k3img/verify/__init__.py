"""Boots an image and proves that it works; writes the report."""
