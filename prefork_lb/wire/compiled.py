"""The compiled reader and writer of fields, and of small chunks, where there are any."""
from __future__ import annotations

from prefork_lb.native.loader import NativeChunks, NativeHeads, native_chunks, native_heads

heads: NativeHeads | None = native_heads()
chunks: NativeChunks | None = native_chunks()
