"""From `[pools.NAME.sticky]` to the mode that keeps a pool's sessions."""
from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace

from prefork_lb.balance.hashed import Hash
from prefork_lb.balance.keys import policy_key_finder
from prefork_lb.balance.policy import PolicyMemory, PolicySetup
from prefork_lb.config.current import secrets_in
from prefork_lb.config.model import Config
from prefork_lb.config.pool import PoolConfig
from prefork_lb.config.sticky import DEFAULT_COOKIE, DEFAULT_LEARNED_IDLE_S, StickyConfig
from prefork_lb.errors import ConfigError
from prefork_lb.proxy.request import TrustCheck
from prefork_lb.shared import layout as at
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.sessions import SessionKeys, SessionTable
from prefork_lb.upstream.pool import MakeSticky
from prefork_lb.upstream.server import Server
from prefork_lb.upstream.sticky.cookie import CookieRules, CookieSticky
from prefork_lb.upstream.sticky.keyed import KeyedSticky
from prefork_lb.upstream.sticky.learn import LearnedSticky
from prefork_lb.upstream.sticky.route import RouteSticky
from prefork_lb.upstream.sticky.session import OnFailure, SessionRules, Sticky

log = logging.getLogger("prefork_lb")


def secrets_of(name: str, pool: PoolConfig, config: Config) -> tuple[bytes, ...]:
    """The secrets in the file that the pool's sessions go by: its own, or that of the balancers that share learned ones; none
    when there is no such file. Raises ConfigError."""
    sticky, file, key = pool.sticky, "", f"pools.{name}.sticky.secret_file"
    if sticky is not None and sticky.mode == "cookie":
        file = sticky.secret_file
    elif sticky is not None and sticky.mode == "learn" and config.cluster is not None:
        file, key = config.cluster.secret_file, "cluster.secret_file"
    try:
        return secrets_in(file) if file else ()
    except ValueError as exc:  # it was checked with the configuration; the file has changed since
        raise ConfigError([f"{config.source}: {key}: {exc}"]) from exc


def sticky_maker(name: str, pool: PoolConfig, secrets: Sequence[bytes], ledger: Ledger,
                 is_trusted: TrustCheck) -> MakeSticky:
    """Makes the mode of a pool's sessions, for the servers that the pool has; None when it has none. `is_trusted`: whether the
    proxy at an address is believed."""
    sticky = pool.sticky
    if sticky is None:
        return lambda servers: None
    rules = SessionRules(OnFailure(sticky.on_failure), int(sticky.drain_timeout * 1000))
    segment = ledger.segment
    if sticky.mode == "route":
        return lambda servers: RouteSticky(servers, rules, sticky.cookie, sticky.parameter)
    if sticky.mode == "learn":
        table, keys = SessionTable(segment, ledger), SessionKeys(segment.secret, name, secrets[0] if secrets else b"")
        return lambda servers: LearnedSticky(servers, table, keys, rules, sticky.cookie, sticky.header,
                                             sticky.idle or DEFAULT_LEARNED_IDLE_S)
    if sticky.mode == "cookie":
        return lambda servers: _cookie(name, sticky, servers, secrets, rules, segment)
    slots, columns = segment.layout.servers, len(at.POLICY_COLUMNS) + 1
    nowhere = PolicyMemory([0] * at.POLICY_CELLS, tuple([0] * slots for _ in range(columns)))
    key_of, leaving = policy_key_finder(sticky.mode, is_trusted), replace(rules, keeps_drained=False)
    return lambda servers: KeyedSticky(Hash(PolicySetup(random.Random(), nowhere, servers)), key_of, leaving)


def _cookie(name: str, sticky: StickyConfig, servers: Sequence[Server], secrets: Sequence[bytes], rules: SessionRules,
            segment: Segment) -> Sticky:
    if not secrets:
        secrets = (segment.secret,)
        if not segment.cells[at.H_SECRET_TOLD]:
            segment.cells[at.H_SECRET_TOLD] = 1
            log.warning("pool %s: sticky.secret_file is not set: a restart forgets the sessions; reloads and upgrades keep them",
                        name)
    return CookieSticky(name, servers, secrets, rules, CookieRules(
        sticky.cookie or DEFAULT_COOKIE, sticky.path, sticky.domain, sticky.max_age, sticky.idle, sticky.http_only,
        sticky.same_site, sticky.secure))
