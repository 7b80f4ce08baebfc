"""What all workers of an instance share: the segment, its lock, the ledger, the server table."""
