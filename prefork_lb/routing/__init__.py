"""Which pool answers a request: pure, from its host and path."""
