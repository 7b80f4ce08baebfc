"""gunicorn's logger, with an error log in JSON."""
from __future__ import annotations

from typing import Any

from prefork_lb.error_log import JSONFormatter
from prefork_lb.gunicorn.internals import Logger


class JSONLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """The setting `logger_class`, for `[log] errors = "json"`."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JSONFormatter())
