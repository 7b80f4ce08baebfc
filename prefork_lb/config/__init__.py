"""The configuration: from TOML, or the environment, to a checked, frozen model."""
from __future__ import annotations

from prefork_lb.config.load import load, load_file, notices
from prefork_lb.config.model import Config

__all__ = ["Config", "load", "load_file", "notices"]
