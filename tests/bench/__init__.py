"""Benchmarks: figures and the commands that print them."""
