"""Who may use a route: `basic_auth` and `forward_auth`. See `config.routes`."""
from __future__ import annotations

from typing import Annotated

from prefork_lb.config.section import Seconds, Section, meta


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


class ForwardAuthConfig(Section, frozen=True):
    """Another server that decides on each request, `forward_auth` of a route: it lets pass what it answers with 2xx. Its 401, 403
    and redirects go to the client; with any other answer, or none, the client gets 503."""

    url: Annotated[str, meta(
        "Where it is asked by GET, with the request's fields and X-Forwarded-Method, -Proto, -Host, -Uri and -For."
    )]
    fields: Annotated[tuple[str, ...], meta(
        "Fields of its answer that the server gets; what the client sent under these names is removed."
    )] = ()
    timeout: Annotated[Seconds, meta("Seconds until it has answered.")] = 5.0
    cache: Annotated[float, meta(
        "Seconds for which a 2xx holds for further requests with the same method, target and fields from the same client. 0: "
        "none is remembered.", ge=0, le=3600
    )] = 0.0
