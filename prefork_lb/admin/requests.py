"""A request to the administration interface, and who makes it."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request

from prefork_lb.admin.answers import Problem
from prefork_lb.errors import shown

BODY_LIMIT = 64 * 1024

_Body = TypeVar("_Body")


def _number(text: str) -> float | int:
    """A number with a point or an exponent: a whole one is as good without."""
    value = float(text)
    return int(value) if value.is_integer() else value


_json = msgspec.json.Decoder(float_hook=_number)


class Caller(NamedTuple):
    """Who makes a request, as the tokens say."""

    role: str  # operator or reader
    name: str
    csrf: str = ""  # what a browser has to send with a change

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


class AdminRequest(Request):
    """A request; `caller` is None without a token that is right."""

    max_content_length = BODY_LIMIT
    caller: Caller | None = None

    @property
    def who(self) -> str:
        """The caller and the address, for the log."""
        return f"{self.caller.name if self.caller else 'nobody'} ({self.remote_addr or 'unix socket'})"

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A number of the query. Raises Problem."""
        text = self.args.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
            raise Problem(400, f"{name} is {shown(text)}; expected a number in {least}..{most}", name)
        return int(text)

    def flag(self, name: str) -> bool:
        """A flag of the query, false when it is not there. Raises Problem."""
        text = self.args.get(name, "false")
        if text not in ("true", "false"):
            raise Problem(400, f"{name} is {shown(text)}; expected true or false", name)
        return text == "true"

    def expectation(self) -> Callable[[str], bool] | None:
        """Whether a server of this version is the one that is meant, by If-Match; None: any is."""
        return self.if_match.contains if "If-Match" in self.headers else None

    def body_as(self, kind: type[_Body]) -> _Body:
        """The body, which is JSON, as a value of this type. Raises Problem."""
        if self.mimetype != "application/json":
            raise self._not_json()
        try:
            return msgspec.convert(_json.decode(self.get_data()), kind)
        except RequestEntityTooLarge as exc:
            raise Problem(413, f"the body is longer than {BODY_LIMIT} bytes") from exc
        except msgspec.ValidationError as exc:
            what, _, place = str(exc).partition(" - at `$")
            raise Problem(400, what, place.strip("`.")) from exc
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise Problem(400, f"the body is not JSON: {exc}") from exc

    def expect_json_if_any(self) -> None:
        """Refuse what a form sends to a path that needs no body. Raises Problem."""
        if self.mimetype not in ("", "application/json"):
            raise self._not_json()

    def _not_json(self) -> Problem:
        return Problem(415, f"the body is {self.mimetype or 'of no type'}; expected Content-Type: application/json")
