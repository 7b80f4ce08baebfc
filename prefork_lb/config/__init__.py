"""The configuration: from TOML, or the environment, to a checked, frozen model."""
from __future__ import annotations

from prefork_lb.config.load import Loaded, find_and_load, load, load_file
from prefork_lb.config.model import Config

__all__ = ["Config", "Loaded", "find_and_load", "load", "load_file"]
