"""What came from outside, as text that a log can hold."""
from __future__ import annotations

import pytest

from prefork_lb.errors import BadRequest
from prefork_lb.proxy import logged_text
from prefork_lb.proxy.logged_text import LoggedAtoms, log_text
from prefork_lb.proxy.refusal_log import tell_refusal


@pytest.mark.parametrize(("data", "shown"), [
    (b"", ""), (b"curl/8.5 (x; y)", "curl/8.5 (x; y)"),
    ("Größe ☃ 日本".encode(), "Größe ☃ 日本"),
    (b"gr\xf6\xdfe", r"gr\xf6\xdfe"),  # latin-1, or anything else
    (b"a\x9b31m", r"a\x9b31m"), ("a\x9b31m".encode(), r"a\xc2\x9b31m"), ("a\x85b".encode(), r"a\xc2\x85b"),
    (b"a\tb\r\n\x1b[2J\x00\x7f", r"a\x09b\x0d\x0a\x1b[2J\x00\x7f"),
    ("a\u2028b\u202ec\ufeff".encode(), r"a\xe2\x80\xa8b\xe2\x80\xaec\xef\xbb\xbf"),
    (b'"', r"\""), (b"\\", r"\\"), (b'\\"', r"\\\""), ("ö\"\\".encode(), r"ö\"\\"),
    (b"\xed\xa0\x80", r"\xed\xa0\x80"), (b"\xff" * 3, r"\xff\xff\xff"),
])
def test_what_is_shown_of_bytes(data: bytes, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_text, "_has_utf8", True)
    assert log_text(data.decode("latin-1")) == shown
    assert shown.isprintable() and "\n" not in shown


def test_a_log_that_is_not_utf_8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_text, "_has_utf8", False)
    assert log_text("ö".encode().decode("latin-1")) == r"\xc3\xb6"


def test_a_value_that_is_decoded_already_is_shown_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logged_text, "_has_utf8", True)
    assert log_text("日\n") == r"日\x0a"


def test_atoms() -> None:
    atoms = LoggedAtoms({"a": 'x"\x9b', "s": 200, "{user-agent}i": "x\ty", "u": "jos\xe9\nroot"})
    form = '%(a)s %(s)s %({User-Agent}i)s %(u)s %(x)s %({x}o)s'
    assert form % atoms == r'x\"\x9b 200 x\x09y josé\x0aroot - -'


def test_the_line_of_a_refusal_holds_no_control_character(caplog: pytest.LogCaptureFixture) -> None:
    """gunicorn's workers hand a target over as it came."""
    with caplog.at_level("INFO", "prefork_lb"):
        tell_refusal(BadRequest("on purpose"), "192.0.2.1", "GET /\x9b31m")
    assert r"GET /\x9b31m: 400: on purpose" in caplog.text
