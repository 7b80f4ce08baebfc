"""Completion in the shell: servers and pools of the instances that run. Where these cannot be found, it offers nothing."""
from __future__ import annotations

import contextlib

import click
from click.shell_completion import CompletionItem

from prefork_lb.cli.instances import InstanceChoice, Key


def complete_server(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The addresses that begin so, each with its pools."""
    pool = ctx.params.get("pool")
    pools: dict[str, list[str]] = {}
    for name, address in _servers(ctx):
        if address.startswith(incomplete) and pool in (None, name):
            pools.setdefault(address, []).append(name)
    return [CompletionItem(address, help=f"pool {', '.join(names)}") for address, names in pools.items()]


def complete_pool(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The pools that begin so."""
    names = dict.fromkeys(name for name, _ in _servers(ctx))
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _servers(ctx: click.Context) -> list[Key]:
    choice = InstanceChoice(ctx.params.get("master"), ctx.params.get("url"), ctx.params.get("token_file"))
    found: list[Key] = []
    with contextlib.suppress(click.ClickException):
        for instance in choice.open_all():
            found += instance.servers()
    return found
