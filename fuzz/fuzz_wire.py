"""Fuzz the wire layer and the request's way out.

    python fuzz/fuzz_wire.py [--seed N] [--count N | --seconds S]     mutations of tests/wire, by a seed
    python fuzz/fuzz_wire.py --replay FILE                            one input again
    python fuzz/fuzz_wire.py --atheris [libFuzzer options]            guided by coverage, where atheris is installed

An input's first byte says what the rest is (`TARGETS`). What fails is written to `fuzz/failures/`, and the run ends with 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))

from fuzz import invariants  # noqa: E402
from fuzz.mutation import mutate, seeds  # noqa: E402

FAILURES = REPOSITORY / "fuzz" / "failures"


def _request(data: bytes) -> bool:
    invariants.check_compiled(data)
    return invariants.check_request(data, (1, 5))


def _response(data: bytes) -> bool:
    invariants.check_compiled(data)
    return invariants.check_response(data, b"GET", (1, 5)) | invariants.check_response(data, b"HEAD", (5,))


def _chunked(data: bytes) -> bool:
    invariants.decoder_state_is_final(data)
    # The cuts come from the data, so that an input says all about its run.
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return invariants.check_chunked(
        data, [int.from_bytes(digest[i : i + 2], "big") for i in range(0, 2 * (digest[0] % 8), 2)]
    )


def _unchecked(data: bytes) -> bool:
    """A head as a server in front might split it: at blanks and colons, whatever the lines hold."""
    start, _, rest = data.partition(b"\r\n")
    words = (start.split(b" ") + [b"", b""])[:2]
    # Half of the inputs are split without regard to line ends: names and values with CR and LF in them are the point.
    lines = rest.split(b"\r\nX-" if len(data) % 2 else b"\r\n")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines if line)]
    if not any(name.lower() == b"host" for name, _ in fields):
        fields.append((b"Host", b"a.test"))
    invariants.check_trailers(fields)
    return invariants.check_unchecked_head(words[0], words[1], fields)


def _proxy_protocol(data: bytes) -> bool:
    """Binary headers come a second time with a length that fits: else few would show what is behind it."""
    accepted = invariants.check_proxy_header(data)
    if len(data) >= 16 and data.startswith(b"\r\n\r\n\0\r\nQUIT\n"):
        accepted |= invariants.check_proxy_header(data[:14] + (len(data) - 16).to_bytes(8, "big")[-2:] + data[16:])
    return accepted


TARGETS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("request", _request),
    ("response", _response),
    ("chunked", _chunked),
    ("request", _unchecked),
    ("proxy_protocol", _proxy_protocol),
)


def run_one(data: bytes) -> bool:
    """Check one input. Whether it was accepted as valid. Raises for what must not be."""
    return TARGETS[data[0] % len(TARGETS)][1](data[1:]) if data else False


def inputs(seed: int) -> Iterator[bytes]:
    """Inputs without end; the same for the same seed."""
    rng = random.Random(seed)
    corpus = seeds()
    while True:
        number = rng.randrange(len(TARGETS))
        pool = corpus[TARGETS[number][0]]
        yield bytes((number,)) + mutate(rng.choice(pool), pool, rng)


def run(seed: int, count: int | None, seconds: float | None) -> Counter[str]:
    """Check inputs up to a limit. Returns how many of each target were accepted and refused. Raises at the first failure."""
    deadline = time.monotonic() + seconds if seconds is not None else None
    seen: Counter[str] = Counter()
    for number, data in enumerate(inputs(seed)):
        if number == count or (deadline is not None and time.monotonic() > deadline):
            break
        try:
            accepted = run_one(data)
        except BaseException:
            _keep(data)
            raise
        seen[f"{TARGETS[data[0]][1].__name__[1:]} {'accepted' if accepted else 'refused'}"] += 1
    return seen


def _keep(data: bytes) -> None:
    FAILURES.mkdir(exist_ok=True)
    path = FAILURES / hashlib.blake2b(data, digest_size=8).hexdigest()
    path.write_bytes(data)
    print(
        f"kept as {path.relative_to(REPOSITORY)}; again with: python fuzz/fuzz_wire.py --replay {path.relative_to(REPOSITORY)}",
        file=sys.stderr,
    )


def _atheris(arguments: list[str]) -> int:
    try:
        import atheris  # type: ignore[import-not-found]
    except ImportError:
        print(
            "atheris is not installed (pip install atheris); without --atheris the corpus is mutated by a seed",
            file=sys.stderr,
        )
        return 2
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], run_one)
    atheris.Fuzz()
    return 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--atheris"]:
        return _atheris(arguments[1:])
    parser = argparse.ArgumentParser(description="Fuzz the wire layer with mutations of tests/wire.")
    parser.add_argument("--seed", type=int, default=1)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--count", type=int, help="so many inputs (10000)")
    limit.add_argument("--seconds", type=float, help="so long")
    limit.add_argument("--replay", type=Path, help="one input, from a file")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        print("accepted" if run_one(options.replay.read_bytes()) else "refused")
        return 0
    count = 10_000 if options.count is None and options.seconds is None else options.count
    try:
        seen = run(options.seed, count, options.seconds)
    except Exception:
        traceback.print_exc()
        return 1
    for what, number in sorted(seen.items()):
        print(f"{number:8} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
