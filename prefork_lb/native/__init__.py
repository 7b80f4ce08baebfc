"""The compiled modules (C) and how they are loaded; without a compiler the Python they stand for runs."""
