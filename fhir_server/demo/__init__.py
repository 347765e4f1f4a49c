"""Synthetic demo data, exchanged in through the real doors when a store is empty."""
