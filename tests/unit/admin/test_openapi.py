"""The served description, held against the endpoints and against what they answer."""
from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from prefork_lb.admin.openapi import DOCUMENT
from prefork_lb.config.routes import RouteConfig, route_number
from prefork_lb.shared.balancers import Balancer, write_balancers
from prefork_lb.shared.events import EventKind, record_event
from prefork_lb.shared.split_weights import id_of
from tests.unit.admin.interface import Interface

PAGES = ("/", "/static/<name>")
SERVER = "/api/v1/pools/web/servers/127.0.0.1:8001"
SPLIT = f"/api/v1/splits/{id_of(route_number(RouteConfig(hosts=('split.test',))))}"


def in_openapi(rule: str) -> str:
    return re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule)


def operation(path: str, method: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]
    return found


def check(value: object, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]}).validate(value)


def test_it_describes_each_route_and_nothing_else(interface: Interface) -> None:
    endpoints = {(in_openapi(endpoint.path), endpoint.method.lower()) for endpoint in interface.application.endpoints.all
              if endpoint.path not in PAGES}
    assert endpoints == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    for endpoint in interface.application.endpoints.all:
        if endpoint.path not in PAGES:
            described = operation(in_openapi(endpoint.path), endpoint.method)
            assert (described.get("security") == []) == endpoint.is_open, endpoint
            assert {each["name"] for each in described.get("parameters", ()) if each["in"] == "path"} == set(
                re.findall(r"<(?:path:)?(\w+)>", endpoint.path)), endpoint


def test_its_schemas_are_schemas() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
        for name, part in schema["properties"].items():
            assert part.get("description") or "$ref" in part, name


@pytest.mark.parametrize(("path", "method", "url", "body", "status"), [
    ("/healthz", "GET", "/healthz", None, 200),
    ("/readyz", "GET", "/readyz", None, 200),
    ("/metrics", "GET", "/metrics", None, 200),
    ("/api/v1/instance", "GET", "/api/v1/instance", None, 200),
    ("/api/v1/workers", "GET", "/api/v1/workers", None, 200),
    ("/api/v1/pools", "GET", "/api/v1/pools", None, 200),
    ("/api/v1/pools/{name}", "GET", "/api/v1/pools/web", None, 200),
    ("/api/v1/pools/{name}", "GET", "/api/v1/pools/none", None, 404),
    ("/api/v1/pools/{name}/servers", "GET", "/api/v1/pools/web/servers", None, 200),
    ("/api/v1/pools/{name}/servers", "POST", "/api/v1/pools/web/servers", {"address": "127.0.0.1:8009"}, 201),
    ("/api/v1/pools/{name}/servers", "POST", "/api/v1/pools/web/servers", {"address": "127.0.0.1:8001"}, 409),
    ("/api/v1/pools/{name}/servers", "POST", "/api/v1/pools/web/servers", {"address": "nowhere"}, 400),
    ("/api/v1/pools/{name}/servers/{address}", "GET", SERVER, None, 200),
    ("/api/v1/pools/{name}/servers/{address}", "PATCH", SERVER, {"admin": "drain", "weight": None}, 200),
    ("/api/v1/pools/{name}/servers/{address}", "PATCH", SERVER, {"weight": "heavy"}, 400),
    ("/api/v1/pools/{name}/servers/{address}", "DELETE", SERVER, None, 204),
    ("/api/v1/splits", "GET", "/api/v1/splits", None, 200),
    ("/api/v1/splits/{id}", "GET", SPLIT, None, 200),
    ("/api/v1/splits/{id}", "GET", "/api/v1/splits/none", None, 404),
    ("/api/v1/splits/{id}", "PATCH", SPLIT, {"weights": {"api": 9, "web": None}}, 200),
    ("/api/v1/splits/{id}", "PATCH", SPLIT, {"weights": {"api": "heavy"}}, 400),
    ("/api/v1/events", "GET", "/api/v1/events?limit=2", None, 200),
    ("/api/v1/events", "GET", "/api/v1/events?limit=no", None, 400),
    ("/api/v1/config", "GET", "/api/v1/config", None, 200),
    ("/api/v1/session", "GET", "/api/v1/session", None, 200),
    ("/api/v1/openapi.json", "GET", "/api/v1/openapi.json", None, 200),
])
def test_answers_are_as_described(interface: Interface, path: str, method: str, url: str, body: object, status: int) -> None:
    with interface.ledger.locked():
        record_event(interface.segment, EventKind.AUDIT, "a deed")
    write_balancers(interface.segment, [Balancer("a", True, 1, 1, 4, 2500, False)])
    answer = interface.ask(url, method, **({"json": body} if body is not None else {}))
    assert answer.status_code == status
    described = operation(path, method)["responses"][str(status)]
    assert set(described.get("headers", ())) <= set(answer.headers.keys())
    if "content" not in described:
        assert answer.data == b""
        return
    kind = answer.mimetype
    check(answer.text if kind == "text/plain" else answer.json, described["content"][kind]["schema"])
