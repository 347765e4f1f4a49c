"""Whole stories over real sockets: a running server, HTTP and MLLP clients."""
