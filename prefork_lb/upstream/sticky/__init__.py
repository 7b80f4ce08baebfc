"""Sessions that stay with a server: how a request tells which one, a module for each mode."""
