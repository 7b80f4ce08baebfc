"""The ways to start and stop a server: one a file."""
