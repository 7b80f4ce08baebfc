"""HTTP/1.1 as bytes and values: no sockets, no policy, a section of RFC 9110 or RFC 9112 for every rule."""
