"""The compiled modules for fields and for chunks; None where a module was not built or is not wanted."""
from __future__ import annotations

from prefork_lb.native.loader import NativeChunks, NativeHeads, native_chunks, native_heads

heads: NativeHeads | None = native_heads()
chunks: NativeChunks | None = native_chunks()
