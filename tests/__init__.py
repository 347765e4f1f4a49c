"""Tests of the exchange, one folder per package."""
