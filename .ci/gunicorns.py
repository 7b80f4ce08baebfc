"""Start, reload, kill, upgrade and stop with the oldest and the newest gunicorn that setup.py allows.

prefork_lb leans on gunicorn's internals (prefork_lb/gunicorn), and the environment has but one version of it. Each version is put
into a folder that goes before the environment's packages. A version that pip cannot get was not tested: the exit code is 1.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = ("tests/integration/test_gunicorn_smoke.py", "tests/integration/test_stop_while_starting.py",
         "tests/unit/gunicorn", "tests/unit/worker/test_heartbeat.py")


def oldest() -> str:
    """The lowest version that setup.py allows, as pip is asked for it."""
    found = re.search(r'"gunicorn>=([0-9.]+)"', (REPOSITORY / "setup.py").read_text())
    if found is None:
        raise SystemExit("setup.py: no line with the lowest version of gunicorn")
    return f"gunicorn=={found[1]}"


def installed(folder: Path) -> str:
    """The version of gunicorn in a folder."""
    (info,) = folder.glob("gunicorn-*.dist-info")
    return info.name.removesuffix(".dist-info").partition("-")[2]


def main() -> int:
    failed = []
    with tempfile.TemporaryDirectory(prefix="gunicorns-") as base:
        for requirement in (oldest(), "gunicorn"):
            folder = Path(base) / requirement
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            pip += ["--retries", "1", "--timeout", "15", "--target", str(folder), requirement]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"not tested with {requirement}: pip cannot get it:\n{done.stderr}", file=sys.stderr)
                failed.append(f"{requirement} (not tested)")
                continue
            version = installed(folder)
            print(f"gunicorn {version}:", flush=True)
            paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
            tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "-ra", *TESTS], cwd=REPOSITORY, check=False,
                                   env={**os.environ, "PYTHONPATH": paths, "GUNICORN_VERSION_EXPECTED": version})
            if tests.returncode:
                failed.append(f"gunicorn {version}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
