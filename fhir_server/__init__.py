"""The running exchange: doors, interactions, search, security and storage."""
