"""The command line: `prefork-lb`, one file a command."""
