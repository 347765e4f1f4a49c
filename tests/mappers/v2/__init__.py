"""Tests of mappers/v2."""
