"""Faults made for real: processes killed, disks filled, members lost."""
