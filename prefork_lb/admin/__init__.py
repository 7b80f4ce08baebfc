"""The administration interface: a process of its own beside the workers, which reads shared memory and steers by it."""
