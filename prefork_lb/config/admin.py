"""The section `[admin]`: where the administration interface listens, and who may use it."""
from __future__ import annotations

import ipaddress
from typing import Annotated

from prefork_lb.config.section import Section, meta
from prefork_lb.net.address import Address, parse_address


class AdminConfig(Section, frozen=True):
    """The administration interface: API, metrics and dashboard, on a listener of its own, see [admin.md](admin.md). A change
    by a reload counts at once; where the section was absent at the start there are no statistics until a restart."""

    bind: Annotated[str, meta(
        'Address to listen on: "127.0.0.1:9900", "[::1]:9900" or "unix:/path". Beyond this host it needs a `token_file`.'
    )]
    token_file: Annotated[str, meta(
        "File with a line for each token, `operator TOKEN` or `reader TOKEN`, and a name behind it if you like; it is read again "
        "when it changes. None: everybody who reaches the listener is an operator."
    )] = ""
    hosts: Annotated[tuple[str, ...], meta(
        "Names that the Host field of a request may have, besides localhost and the address of `bind`; others are refused, since "
        "a page elsewhere may have its name point here."
    )] = ()

    @property
    def address(self) -> Address:
        """`bind`, parsed."""
        return parse_address(self.bind)


def is_of_this_host(address: Address) -> bool:
    """Whether only processes of this host reach a listener there."""
    if address.is_unix or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False
