"""`python -m prefork_lb.controller SEGMENT --descriptor NUMBER [--log FILE]`: the workers start it, nobody else needs to."""
from __future__ import annotations

import sys

from prefork_lb.controller.process import run

# Without argparse, which would be 0.4 MiB of every instance.
segment, *words = sys.argv[1:]
options = dict(zip(words[::2], words[1::2], strict=True))
sys.exit(run(segment, int(options["--descriptor"]), options.get("--log", "")))
