"""What the controller loads for a configuration that needs little: each module is memory of every instance."""
from __future__ import annotations

import subprocess
import sys


def test_a_controller_without_checks_loads_nothing_of_them_nor_openssl() -> None:
    named = ("ssl", "hashlib", "prefork_lb.controller.probe", "prefork_lb.controller.schedule", "prefork_lb.proxy.inbound",
             "prefork_lb.wire.parse", "prefork_lb.net.dial", "socket", "subprocess")
    code = f"import prefork_lb.controller.process, sys; print([name for name in {named!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert shown.stdout == "[]\n"
