"""The controller: a process beside the workers, which checks the servers and decides what the workers go by."""
