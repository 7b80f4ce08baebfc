"""Install what `make wheel` has made, and the sources where no compiler is: each must work, and say what it has."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_LOOK = """
import prefork_lb
from prefork_lb.cli.main import main
from prefork_lb.native.loader import compiled
from prefork_lb.wire.head import HeadLimits
from prefork_lb.wire.parse import parse_request
parse_request(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n", HeadLimits())
print(prefork_lb.__file__, compiled())
"""


def installed(what: str, folder: Path, **environment: str) -> tuple[str, str]:
    """Install into a folder. Where the package is loaded from then, and whether it has the compiled modules."""
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target",
                    str(folder), what], cwd=REPOSITORY, env={**os.environ, **environment}, check=True)
    shown = subprocess.run([sys.executable, "-c", _LOOK], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
                           capture_output=True, text=True, check=True)
    place, _, compiled = shown.stdout.strip().rpartition(" ")
    return place, compiled


def main() -> int:
    wheels = sorted(REPOSITORY.glob("dist/*.whl"), key=lambda file: file.stat().st_mtime)
    if not wheels:
        raise SystemExit("dist/ has no wheel: make wheel")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="wheels-") as base:
        # What was compiled here before would be found again.
        left_out = shutil.ignore_patterns(".*", "build", "dist", "*.so")
        sources = shutil.copytree(REPOSITORY, Path(base) / "sources", ignore=left_out)
        for name, expected, what, environment in (
                ("the wheel", "True", str(wheels[-1]), {}),
                ("the sources without a compiler", "False", str(sources), {"CC": "/nowhere/cc", "PREFORK_LB_NATIVE": ""})):
            folder = Path(base) / name.replace(" ", "-")
            place, compiled = installed(what, folder, **environment)
            well = place.startswith(str(folder)) and compiled == expected
            failed += not well
            print(f"{name}: loaded from {place}, compiled modules: {compiled}" + ("" if well else f"; expected {expected}"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
