"""Raw HTTP cases for reverse proxies: bytes in, bytes out, a scripted origin behind; any proxy can be put between."""
