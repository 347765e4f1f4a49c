"""Loaders: one release format, one file."""
