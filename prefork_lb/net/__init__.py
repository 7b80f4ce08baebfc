"""Streams: the only I/O that the engine knows, here over real sockets."""
