"""Servers by DNS: the addresses of a name, or SRV records (RFC 2782). dnspython asks; /etc/hosts has no say."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from prefork_lb.config.discovery import name_server
from prefork_lb.discovery.listing import entry
from prefork_lb.discovery.source import MOST_SERVERS, ListError, Listing
from prefork_lb.net.address import Address, parse_address
from prefork_lb.shared.table import MOST_WEIGHT, ServerEntry

_LOOK_S = 10.0  # for all questions of one look
_TRY_S = 2.0  # for an answer, until another name server is asked
_LEAST_AGAIN_S = 1.0


class _Names:
    """Asks name servers. Made anew for each look, so a new /etc/resolv.conf counts."""

    def __init__(self, resolvers: Sequence[str]) -> None:
        try:
            self._resolver = dns.resolver.Resolver(configure=not resolvers)
        except (dns.exception.DNSException, OSError) as exc:
            raise ListError(f"there is no name server to ask: {exc}") from exc
        if resolvers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*name_server(text)) for text in resolvers]
        self._resolver.timeout = _TRY_S
        # Answers beyond 512 bytes by UDP, too (RFC 6891).
        self._resolver.use_edns(0, 0, 1232)
        self._deadline = time.monotonic() + _LOOK_S
        self.ttl_s: float | None = None  # the least of all answers

    def ask(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """The records; None: the name has none of this kind. Raises ListError."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise ListError(f"{name}: not all names were answered within {_LOOK_S:g} s")
        try:
            answer = self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False, lifetime=left_s)
        except dns.resolver.NXDOMAIN as exc:
            raise ListError(f"{name}: there is no such name") from exc
        except dns.exception.Timeout as exc:
            raise ListError(f"{name}: no name server has answered within {left_s:.0f} s") from exc
        except (dns.exception.DNSException, OSError, ValueError) as exc:
            raise ListError(f"{name}: {' '.join(str(exc).split()) or type(exc).__name__}") from exc
        if answer.rrset is None:
            return None
        self._note_ttl(answer.expiration - time.time())
        return answer

    def addresses(self, name: str) -> list[str]:
        """All addresses of a name, IPv4 first. Raises ListError, also when only one of the two kinds cannot be had."""
        found: list[str] = []
        for kind in ("A", "AAAA"):
            answer = self.ask(name, kind)
            found += sorted(record.address for record in answer or ())
        return found

    def _note_ttl(self, seconds: float) -> None:
        self.ttl_s = seconds if self.ttl_s is None else min(self.ttl_s, seconds)


class _DNSSource:
    """What both kinds have. Looks again when the answers' TTL is over."""

    def __init__(self, interval_s: float, resolvers: Sequence[str]) -> None:
        """`interval_s` is the time between two looks at answers with a TTL of 0."""
        self._interval_s = interval_s
        self._resolvers = resolvers

    def look(self) -> Listing:
        names = _Names(self._resolvers)
        servers: dict[str, ServerEntry] = {}
        try:
            for server in self._servers(names):
                servers.setdefault(server.address, server)
                if len(servers) > MOST_SERVERS:
                    raise ListError(f"more than {MOST_SERVERS} servers")
        except ValueError as exc:  # a record may have the port 0
            raise ListError(str(exc)) from exc
        again_s = names.ttl_s if names.ttl_s is not None and names.ttl_s > 0 else self._interval_s
        return Listing(servers, max(_LEAST_AGAIN_S, again_s))

    def _servers(self, names: _Names) -> Iterator[ServerEntry]:
        raise NotImplementedError

    def wait(self, seconds: float, stop: threading.Event) -> None:
        stop.wait(seconds)

    def close(self) -> None:
        """Nothing is held."""


class AddressSource(_DNSSource):
    """Each address of a name is a server."""

    def __init__(self, address: str, interval_s: float, resolvers: Sequence[str]) -> None:
        super().__init__(interval_s, resolvers)
        self._address = parse_address(address)

    def _servers(self, names: _Names) -> Iterator[ServerEntry]:
        address = self._address
        for host in names.addresses(address.host):
            yield entry(str(Address(host, address.port, tls=address.tls)))


class ServiceSource(_DNSSource):
    """Each address of each SRV record's target is a server."""

    def __init__(self, name: str, interval_s: float, resolvers: Sequence[str]) -> None:
        super().__init__(interval_s, resolvers)
        self._name = name

    def _servers(self, names: _Names) -> Iterator[ServerEntry]:
        answer = names.ask(self._name, "SRV")
        # RFC 2782: a target of "." means that the service is decidedly not there.
        records = [record for record in answer or () if record.target != dns.name.root]
        if answer is None or not records:
            return
        first = min(record.priority for record in records)
        heaviest = max(record.weight for record in records)
        hosts: dict[str, list[str]] = {}
        for record in sorted(records, key=lambda record: (record.priority, record.target, record.port)):
            target = record.target.to_text()
            if target not in hosts:
                hosts[target] = _told_with(answer, record.target) or names.addresses(target)
            for host in hosts[target]:
                yield entry(str(Address(host, record.port)), _weight(record.weight, heaviest), backup=record.priority > first)


def _told_with(answer: dns.resolver.Answer, name: dns.name.Name) -> list[str]:
    """The addresses of a name that came with the answer, so that nobody need ask for them; none: it has to be asked."""
    if answer.response.flags & dns.flags.TC:
        return []
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    return sorted(record.address for told in answer.response.additional if told.name == name and told.rdtype in kinds
                  for record in told)


def _weight(weight: int, heaviest: int) -> int:
    """An SRV weight, 0 to 65535, as one of ours: 0 is the least share (RFC 2782)."""
    return max(1, weight if heaviest <= MOST_WEIGHT else round(weight * MOST_WEIGHT / heaviest))
