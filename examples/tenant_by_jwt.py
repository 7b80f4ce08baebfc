"""A filter: the tenant in a signed token picks the pool.

    [[routes]]
    hosts = ["api.example.org"]
    pool = "shared"
    filters = [{ use = "tenant_by_jwt:TenantByJWT", key_file = "/etc/site/jwt.key", audience = "api",
                 pools = ["acme=acme", "globex=big"] }]

It needs PyJWT. The server gets the tenant in X-Tenant, whatever the client sent there; a keyed policy goes by it.
"""
from __future__ import annotations

import re
from pathlib import Path

import jwt

from prefork_lb.filters import Answer, Filter, Request, Setup

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class TenantByJWT(Filter):
    """Lets in who has a token with an end, for this audience, signed with the key of the file."""

    def __init__(self, setup: Setup) -> None:
        self._key = Path(setup.text("key_file")).read_text().strip()
        # Named here and never taken from the token: else a client could choose "none", or take a public key for a secret.
        self._algorithms = setup.texts("algorithms", ["HS256"])
        self._audience = setup.text("audience")
        self._claim = setup.text("claim", "tenant")
        self._pools = dict(entry.split("=", 1) for entry in setup.texts("pools", []))  # others stay in the route's pool

    def on_request(self, request: Request) -> Answer | None:
        kind, _, token = request.fields.get("Authorization").partition(" ")
        if kind.lower() != "bearer" or not token:
            return _refused("")
        try:
            claims = jwt.decode(token.strip(), self._key, algorithms=list(self._algorithms), audience=self._audience,
                                options={"require": ["exp", "aud"]})
        except jwt.InvalidTokenError:
            return _refused(' error="invalid_token"')
        tenant = claims.get(self._claim)
        if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
            return Answer(403, "the token names no tenant\n")
        request.fields.set("X-Tenant", tenant)
        request.key = tenant
        if tenant in self._pools:
            request.pool = self._pools[tenant]
        return None


def _refused(why: str) -> Answer:
    return Answer(401, "a token is needed\n", {"WWW-Authenticate": f"Bearer{why}"})
