"""`prefork-lb explain`: which server a request would get from the running instance, and why not each other one."""
from __future__ import annotations

import dataclasses
import ipaddress
import json
import logging
from urllib.parse import urlsplit

import click
from rich.table import Table

from prefork_lb.cli.exits import exit_with_problems
from prefork_lb.cli.own_policies import find_own_policies
from prefork_lb.cli.running import running_segment
from prefork_lb.cli.tables import print_table
from prefork_lb.errors import ConfigError, PreforkLBError
from prefork_lb.observe.configuration import configuration_of
from prefork_lb.wire import grammar
from prefork_lb.wiring.explaining import Explanation
from prefork_lb.wiring.explaining import explain as explained


@click.command()
@click.argument("method")
@click.argument("url")
@click.option("-H", "--header", "fields", multiple=True, metavar="FIELD", help='A field of the request, as "Cookie: a=b".')
@click.option("--from", "client", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The client's address.")
@click.option("--master", type=int, metavar="PID", help="gunicorn's master, when several instances run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(method: str, url: str, fields: tuple[str, ...], client: str, master: int | None, as_json: bool) -> None:
    """Tell which server the request METHOD URL would get at this moment, why each other one is passed over, and which rules hold.

    Nothing is sent and nothing is claimed: the request is tried in a copy of the running instance's memory.

    \b
    Examples:
      prefork-lb explain GET https://example.com/cart
      prefork-lb explain GET /cart -H "Cookie: prefork_lb=..." --from 203.0.113.7
    """
    block, scheme, port = _request(method, url, fields)
    try:
        ipaddress.ip_address(client)
    except ValueError as exc:
        raise click.BadParameter(f"{client!r} is no IP address", param_hint="--from") from exc
    find_own_policies()
    segment = running_segment(master)
    config = configuration_of(segment)
    if config is None:
        raise click.ClickException("the instance has no configuration in force that this version can read")
    logging.getLogger("prefork_lb").addHandler(logging.NullHandler())  # what a worker would log has not happened
    try:
        found = explained(segment, config, block, client, scheme, port)
    except ConfigError as exc:
        exit_with_problems(exc.problems)
    except PreforkLBError as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        _show(found)


def _request(method: str, url: str, fields: tuple[str, ...]) -> tuple[bytes, str, int]:
    """The head of the request, and the scheme and the port that it comes by."""
    if not _is_token(method):
        raise click.BadParameter(f"{method!r} is no method; expected one like GET", param_hint="METHOD")
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as exc:
        raise click.BadParameter(f"{url!r}: {exc}", param_hint="URL") from exc
    is_whole = parts.scheme in ("http", "https") and parts.hostname
    if not (is_whole or url.startswith("/") or url == "*") or not all("\x21" <= character <= "\x7e" for character in url):
        raise click.BadParameter(f"{url!r} is no URL; expected one like https://example.com/path, or a path; percent-encode what "
                                 "is not ASCII", param_hint="URL")
    lines = []
    for text in fields:
        name, colon, value = text.partition(":")
        if not colon or not _is_token(name) or any(character in "\r\n\0" for character in value):
            raise click.BadParameter(f'{text!r} is no field; expected one like "Cookie: a=b"', param_hint="-H")
        lines.append(f"{name}: {value.strip()}")
    if not any(line.lower().startswith("host:") for line in lines):
        lines.insert(0, f"Host: {parts.netloc.rpartition('@')[2] if is_whole else 'localhost'}")
    target = url.partition("#")[0] if not is_whole else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    block = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return block.encode("utf-8"), parts.scheme or "http", port


def _is_token(text: str) -> bool:
    return grammar.token.fullmatch(text.encode(errors="replace")) is not None


def _show(found: Explanation) -> None:
    for name in ("route", "pool", "policy", "session", "key"):
        if getattr(found, name):
            click.echo(f"{name}: {getattr(found, name)}")
    for note in found.notes:
        click.echo(note)
    if found.server:
        click.echo(f"server: {found.server}")
    if found.answer:
        click.echo(f"the balancer answers {found.answer}")
    if found.rules:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("rule", "in force", "set by"):
            table.add_column(heading)
        for rule in found.rules:
            table.add_row(rule.name, rule.value, rule.place)
        print_table(table, folds="in force")
    if found.servers:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in ("server", "in flight", "limit", "weight", "average", "why"):
            table.add_column(heading, justify="left" if heading in ("server", "why") else "right")
        for server in found.servers:
            in_flight = f"{server.in_flight} + {server.penalties} failed" if server.penalties else str(server.in_flight)
            table.add_row(("> " if server.is_picked else "  ") + server.server, in_flight, str(server.max_connections or "-"),
                          str(server.weight), "-" if server.average_ms is None else f"{server.average_ms:.1f} ms", server.why)
        print_table(table, folds="why")
