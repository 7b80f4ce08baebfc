"""A site's own policies, as commands find them."""
from __future__ import annotations

import os
import sys


def find_own_policies() -> None:
    """Let Python import a site's own policies from the working directory, as gunicorn does."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
