"""What every section of the configuration is made of."""
from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: unknown keys are errors."""


def meta(doc: str, **limits: Any) -> Meta:
    """What a key means, in words of docs/configuration.md, and the limits of its value."""
    return Meta(description=doc, **limits)


Seconds = Annotated[float, Meta(gt=0, le=86400)]
MIB = 1024 * 1024
