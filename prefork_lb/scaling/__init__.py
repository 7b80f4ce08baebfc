"""Automatic scaling: how many servers a pool is to have, and the life of each. Used by the controller."""
