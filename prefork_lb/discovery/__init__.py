"""Lists of servers: where they are, and how they are read."""
