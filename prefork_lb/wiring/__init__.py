"""The composition root: from a configuration to the objects that serve it."""
