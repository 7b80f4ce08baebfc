"""Streams on greenlets over one epoll: the same straight code as with blocking sockets, for thousands of connections at once."""
