"""The compiled module of the loop; None where it was not built or is not wanted."""
from __future__ import annotations

from prefork_lb.native.loader import NativeLoop, native_loop

loop: NativeLoop | None = native_loop()
