"""Pools and servers as the data plane sees them: candidates, claims, leases, idle connections."""
