"""A short run of the fuzzer, and that it can fail."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import fuzz_wire
from fuzz.mutation import mutate, seeds
from prefork_lb.wire import compiled, field_lines
from prefork_lb.wire.chunked import ChunkedDecoder

SCRIPT = Path(fuzz_wire.__file__)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_input_breaks_an_invariant(seed: int) -> None:
    seen = fuzz_wire.run(seed, 4000, None)
    assert seen.total() == 4000
    # Every target takes part, and none only refuses: what is refused at once checks little.
    for target in ("request", "response", "chunked", "unchecked"):
        assert seen[f"{target} accepted"] > 50 and seen[f"{target} refused"] > 50


def test_a_seed_means_the_same_inputs_every_time() -> None:
    first, second, other = (
        [data for _, data in zip(range(50), fuzz_wire.inputs(seed), strict=False)] for seed in (5, 5, 6)
    )
    assert first == second != other


def careless_python(patch: pytest.MonkeyPatch) -> None:
    """A last line of defence that is asleep."""
    patch.setattr(compiled, "heads", None)
    patch.setattr(field_lines, "check_fields", lambda fields, malformed: None)


class CarelessHeads:
    """A compiled module that joins whatever it gets."""

    Section = ()  # no section is one of its own

    def read_request(self, *_: object) -> None:
        return None

    read_response = read_request

    def join_fields(self, fields: list[tuple[bytes, bytes]], travels: dict[bytes, bool]) -> bytes:
        return b"".join(b"%b: %b\r\n" % field for field in fields if travels.get(field[0], True))


def careless_compiled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compiled, "heads", CarelessHeads())


def forgetful_decode(decoder: ChunkedDecoder, data: bytes) -> bytes:
    """A decoder that forgets what it had when a piece ends inside a line."""
    decoder._pending = b""
    return ORIGINAL_DECODE(decoder, data)


ORIGINAL_DECODE = ChunkedDecoder.decode


def forgetful_decoder(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ChunkedDecoder, "decode", forgetful_decode)


@pytest.mark.parametrize("fault", [careless_python, careless_compiled, forgetful_decoder])
def test_a_fault_is_found_and_kept(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault(monkeypatch)
    monkeypatch.setattr(fuzz_wire, "FAILURES", tmp_path / "failures")
    monkeypatch.setattr(fuzz_wire, "REPOSITORY", tmp_path)
    with pytest.raises(Exception):  # noqa: B017 - whatever the fault leads to
        fuzz_wire.run(1, 6000, None)
    kept = list((tmp_path / "failures").iterdir())
    assert len(kept) == 1
    with pytest.raises(Exception):  # noqa: B017
        fuzz_wire.run_one(kept[0].read_bytes())
    monkeypatch.undo()
    fuzz_wire.run_one(kept[0].read_bytes())


def test_it_runs_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seed", "9", "--count", "300"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "request accepted" in done.stdout


def test_an_input_is_run_again_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"\x00GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--replay", str(tmp_path / "input")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "accepted\n")


def test_no_input_is_an_input_too() -> None:
    assert fuzz_wire.run_one(b"") is False


def test_the_corpus_is_what_it_starts_from() -> None:
    assert all(len(pool) > 50 for pool in seeds().values())
    pool = seeds()["request"]
    mutated = [mutate(pool[0], pool, random.Random(number)) for number in range(200)]
    assert len(set(mutated)) > 100
