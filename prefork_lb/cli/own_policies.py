"""A site's own policies, as commands find them."""
from __future__ import annotations

import os
import sys


def find_own_policies() -> None:
    """Let own policies be imported from the folder that the command runs in, as gunicorn does."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
