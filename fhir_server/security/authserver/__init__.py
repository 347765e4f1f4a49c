"""The SMART App Launch 2.2 authorization server; see the README beside it."""
