"""Read-only views of shared memory, for the API, metrics and commands. Nothing here takes the ledger's lock."""
