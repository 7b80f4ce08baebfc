"""Who may use a route: `basic_auth`. See `config.routes`."""
from __future__ import annotations

from typing import Annotated

from prefork_lb.config.section import Section, meta


class BasicAuthConfig(Section, frozen=True):
    """Users with passwords, `basic_auth` of a route: RFC 7617. Others get 401. Needs `pip install 'prefork_lb[auth]'`."""

    file: Annotated[str, meta(
        "A file with a line `user:hash` for each user, as `htpasswd -B` writes it: bcrypt or argon2. Read at the start and at a "
        "reload."
    )]
    realm: Annotated[str, meta("What the client is told that the password is for.")] = "restricted"
    field: Annotated[str, meta(
        "A header field that tells the server the user's name; what the client sent under this name is removed. None: it is not "
        "told."
    )] = ""
