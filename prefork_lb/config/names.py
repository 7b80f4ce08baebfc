"""What names in a configuration look like."""
from __future__ import annotations

import re

HOST = re.compile(r"(?:\*\.)?(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?|\[[0-9A-Fa-f:.]+\]")
PARAMETER = re.compile(r"(?:(?![&=#])[!-~])+")  # of a query
CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")  # of a site's own
POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
