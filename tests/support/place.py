"""Where this test process lives, as `reservation.py` has arranged it, and how programs under test are started there."""
from __future__ import annotations

import os
import socket
from pathlib import Path

from tests.support.reservation import HOST_VARIABLE, is_configuration

REPOSITORY = Path(__file__).resolve().parents[2]
HOST = os.environ.get(HOST_VARIABLE, "127.0.0.1")
"""The address to listen on. Clients that bind nothing come from 127.0.0.1 all the same: the kernel chooses that one."""


def clean_environment() -> dict[str, str]:
    """The environment for a program under test: nothing that configures it but where shared memory lies, and PURE."""
    kept = {name: value for name, value in os.environ.items() if not is_configuration(name)}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), kept.get("PYTHONPATH", "")]))
    return kept


def has_ipv6() -> bool:
    """Whether ::1 can be listened on."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
