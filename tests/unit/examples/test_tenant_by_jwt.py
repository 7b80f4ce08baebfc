"""The tenant in a token picks the pool."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest

from prefork_lb.filters import Answer, Filter, Request
from tests.unit.examples.conftest import MakeFilter

KEY = "k" * 32
FAR = 4102444800  # 2100


@pytest.fixture
def tenant(make: MakeFilter, tmp_path: Path) -> Filter:
    (tmp_path / "key").write_text(KEY + "\n")
    return make("tenant_by_jwt:TenantByJWT", key_file=str(tmp_path / "key"), audience="api", pools=("acme=big",))


def token(key: str = KEY, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"aud": "api", "exp": FAR, "tenant": "acme", **claims}, key, algorithm=algorithm)


def asked(authorization: str) -> Request:
    fields = [(b"X-Tenant", b"root"), (b"X_Tenant", b"root"), (b"Authorization", authorization.encode())]
    return Request(b"GET", b"/", b"h", fields, "192.0.2.1", b"https", "shared", ["shared", "big"])


@pytest.mark.parametrize(("name", "pool"), [("acme", "big"), ("other", "shared")])
def test_the_tenant_picks_the_pool_and_the_server_is_told(tenant: Filter, name: str, pool: str) -> None:
    request = asked(f"Bearer {token(tenant=name)}")
    assert tenant.on_request(request) is None
    assert (request.pool, request.key, request.fields.all("X-Tenant"), request.fields.all("X_Tenant")) == (pool, name, [name], [])


@pytest.mark.parametrize("authorization", [
    "", "Basic eDp5", "Bearer ", "Bearer x.y.z", f"Bearer {token(key='o' * 32)}", f"Bearer {token(exp=1)}",
    f"Bearer {token(aud='b')}",
    f"Bearer {token(key='', algorithm='none')}", f"Bearer {jwt.encode({'aud': 'api', 'tenant': 'acme'}, KEY, algorithm='HS256')}",
])
def test_without_a_good_token_nobody_comes_in(tenant: Filter, authorization: str) -> None:
    answer = tenant.on_request(asked(authorization))
    assert isinstance(answer, Answer) and answer.status == 401 and answer.fields["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", [None, 3, "", "a b", "a" * 65])
def test_a_token_must_name_a_tenant(tenant: Filter, name: Any) -> None:
    answer = tenant.on_request(asked(f"Bearer {token(tenant=name)}"))
    assert isinstance(answer, Answer) and answer.status == 403
