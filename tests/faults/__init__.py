"""Races, kills and full disks."""
