"""Workers run what is compiled, or the Python in its place, as it is wanted: `make pure` relies on it."""
from __future__ import annotations

import os
from pathlib import Path

import prefork_lb
from prefork_lb.native.loader import native, native_chunks, native_heads, native_loop, native_tally
from prefork_lb.native.switches import PURE, is_interpreted
from prefork_lb.native.translated import found
from tests.support.balancer import PROXY, pool_text
from tests.support.rig import Rig


def test_workers_load_what_is_compiled_unless_the_environment_says_otherwise(rig: Rig, tmp_path: Path) -> None:
    modules = {"claims": native(), "heads": native_heads(), "chunks": native_chunks(), "tally": native_tally(),
               "loop": native_loop()}
    wanted = {name for name, module in modules.items() if module is not None}
    are_translated = not is_interpreted() and bool(found(Path(prefork_lb.__file__).parent))
    assert not ((wanted or are_translated) and os.environ.get(PURE))
    counted = f'[admin]\nbind = "unix:{tmp_path}/admin.sock"\n'  # without it nothing is counted
    balancer = rig.balancer(pool_text(rig.origin(1).addresses) + counted, PROXY, workers=1)
    for worker in balancer.workers():
        maps = Path(f"/proc/{worker}/maps").read_text()
        assert {name for name in modules if f"/native/{name}." in maps} == wanted
        assert ("/translated/prefork_lb__mypyc." in maps) == are_translated
    assert ("compiled modules: in use" in balancer.by_hand("status").stdout) == (are_translated and wanted == set(modules))
