"""A process without a free descriptor."""
from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened in this process meanwhile (EMFILE). What is open stays usable."""
    gc.collect()  # sockets of earlier tests that nobody has any more would be closed, and give descriptors back, meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    filled = [os.open(os.devnull, os.O_RDONLY)]  # the lowest free number, then all below the new limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[0] + 1, hard))
    gc.disable()
    try:
        with contextlib.suppress(OSError):
            while True:  # a thread may have closed one since
                filled.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filled:
            os.close(descriptor)
