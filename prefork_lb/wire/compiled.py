"""The compiled reader and writer of fields, where there is one."""
from __future__ import annotations

from prefork_lb.native.loader import NativeHeads, native_heads

heads: NativeHeads | None = native_heads()
