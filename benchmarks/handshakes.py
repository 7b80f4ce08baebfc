"""TLS handshakes by `openssl s_time`: full ones, and those that go on with a session of before."""
from __future__ import annotations

import re
import subprocess

_CLIENTS = 4


def handshakes(port: int, seconds: int, resumes: bool) -> tuple[int, float]:
    """Connect again and again, with one request each, over TLS 1.2. Return how often, and the share that resumed a session.

    1.2, since nginx of Debian 12 has no TLS 1.3 unless it is told to. A client goes on with one session all the time.
    """
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", "/", "-tls1_2", "-time", str(seconds),
               "-reuse" if resumes else "-new"]
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(_CLIENTS)]
    return read_s_time([client.communicate()[0] for client in clients])


def read_s_time(texts: list[str]) -> tuple[int, float]:
    """What several `openssl s_time` print: connections in all, and the share of those that resumed a session."""
    count, marks = 0, ""
    for text in texts:
        found = re.search(r"^(\d+) connections in \d+ real seconds", text, re.M)
        if found is None:
            raise ValueError(f"not what openssl s_time prints:\n{text[-500:]}")
        count += int(found[1])
        marks += "".join(re.findall(r"^[r*]+$", text, re.M))
    return count, marks.count("r") / max(len(marks), 1)
