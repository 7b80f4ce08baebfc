"""What would become of a request: tried with the data plane's own objects, in a private copy of an instance's memory.

Route, session, key and pick come from the very classes that the workers use, so both come to the same result. The claim
is counted in the copy, and the policy keeps its turns there; the instance does not change. This module adds the words: why each
other server is passed over.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from prefork_lb.balance.answer_times import LEVEL, AnswerTimes, microseconds_of, ratio_of
from prefork_lb.balance.keyed import KeyedPolicy
from prefork_lb.balance.policy import Policy
from prefork_lb.config.model import Config
from prefork_lb.config.routes import route_in_words
from prefork_lb.errors import CapacityError, NoUsableServer, ProxyError
from prefork_lb.net.networks import lies_in
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.inbound import NO_CLIENT
from prefork_lb.proxy.outbound import NOTHING
from prefork_lb.proxy.plan import Plan
from prefork_lb.proxy.request import Request
from prefork_lb.routing.match import Router
from prefork_lb.routing.serving import ServerTimeouts
from prefork_lb.shared import layout as at
from prefork_lb.shared.copying import private_copy
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.states import Admin, States, now_ms
from prefork_lb.shared.table import PoolSlots, enter
from prefork_lb.shared.transitions import Check, Ejection
from prefork_lb.upstream.answering import now_us
from prefork_lb.upstream.availability import UsableServers
from prefork_lb.upstream.pool import Pool
from prefork_lb.upstream.runtime import BLOCKING
from prefork_lb.upstream.server import UNLIMITED, Server
from prefork_lb.wire.forwarded import ClientInfo
from prefork_lb.wire.head import RequestHead
from prefork_lb.wire.parse import parse_request
from prefork_lb.wire.target import destination
from prefork_lb.wiring.pools import PoolNeeds, make_pool
from prefork_lb.wiring.room import pool_entries
from prefork_lb.wiring.routes import make_router, weights_of
from prefork_lb.wiring.rules_in_force import RuleInForce, rules_of_pool, rules_of_route, rules_toward_servers
from prefork_lb.wiring.serving import WeightsOf
from prefork_lb.wiring.sessions import secrets_of
from prefork_lb.wiring.worker import make_settings

_BY_CHANCE = frozenset(("random", "power-of-two"))
_BLIND = frozenset(("round-robin", "weighted-round-robin", "random"))


@dataclass(frozen=True, slots=True)
class ServerExplained:
    """A server of the pool, in the order of the configuration."""

    server: str
    in_flight: int
    penalties: int  # failures that still count as load
    max_connections: int  # at this moment; 0: no limit
    weight: int  # at this moment
    average_ms: float | None  # time to the head of its responses; None: the policy does not go by it, or it is not known
    is_picked: bool
    why: str


@dataclass(slots=True)
class Explanation:
    """What would become of a request; texts are empty where there is nothing of the kind."""

    answer: str = ""  # what the balancer itself would answer: it refuses the request, or redirects it
    route: str = ""
    pool: str = ""
    policy: str = ""
    key: str = ""
    session: str = ""
    server: str = ""
    notes: list[str] = field(default_factory=list)
    rules: list[RuleInForce] = field(default_factory=list)
    servers: list[ServerExplained] = field(default_factory=list)


def explain(segment: Segment, config: Config, block: bytes, client: str, scheme: str, port: int) -> Explanation:
    """What would become of the request with the head `block` from the address `client` at this moment.

    `config` is the configuration in force. Raises ConfigError when a policy cannot be made or a secret cannot be read,
    SegmentError when the memory does not belong to this configuration.
    """
    found = Explanation()
    is_trusted = lies_in(config.proxy.trusted_proxies)
    copy = private_copy(segment)
    ledger, states = Ledger(copy, takes_row=False), States(copy)
    with ledger.locked():
        slots = enter(copy, ledger, pool_entries(config))
    pools = {name: _make_pool(name, config, slots[name], ledger, states) for name in config.pools}
    try:
        head = parse_request(block, config.proxy.limits.head)
        peer = ClientInfo(client, scheme.encode(), port, is_trusted(client))
        request = Request(head, peer, NOTHING, NO_CLIENT)
        weights = weights_of(copy, ledger)
        router = make_router(config, weights=weights)
        place = _take_route(config, router, weights, head, peer, found)
        settings = make_settings(config, BLOCKING)
        engine = Engine(router, pools, settings)
        plan = _served(engine, engine.plan(request), request, found)
    except ProxyError as exc:
        found.answer = f"{exc.status}: {exc}"
        return found
    found.rules += rules_of_pool(config.pools[plan.pool.name], plan.pool.name)
    if not plan.pool.redirect_status:
        own = plan.serving.timeouts if plan.serving is not None else ServerTimeouts()
        found.rules += rules_toward_servers((plan.settings or settings).timeouts, own, place)
    if any(rule.name == "filters" for rule in found.rules):
        found.notes.append("filters look at it first, and may change what follows")
    _Picking(config, plan, ledger, states, slots[plan.pool.name]).explain(request, found)
    return found


def _make_pool(name: str, config: Config, slots: PoolSlots, ledger: Ledger, states: States) -> Pool:
    # Without its queue, whose bells would wake real workers, and without TLS, which no pick needs.
    pool = msgspec.structs.replace(config.pools[name], queue=None)
    return make_pool(name, pool, config, PoolNeeds(None, secrets_of(name, pool, config)), slots, ledger, states, BLOCKING)


def _take_route(config: Config, router: Router, weights: WeightsOf, head: RequestHead, peer: ClientInfo,
                found: Explanation) -> str:
    """Tell the route that is taken, and its rules. Return its key. Raises ProxyError when there is none."""
    if not config.routes:
        found.route = "none: everything goes to the only pool"
        return ""
    goal = destination(head)
    route, target = router.find(goal, head, peer)
    number = router.routes.index(route)
    taken, place = config.routes[number], f"routes[{number}]"
    found.route = f"{number + 1}: {route_in_words(taken)}"
    if taken.split:
        taken = msgspec.structs.replace(taken, split=dict(weights(taken).in_force(taken.split)))
    found.rules += rules_of_route(taken, place, router.facts(route, goal, target, head, peer))
    return place


def _served(engine: Engine, first: Plan, request: Request, found: Explanation) -> Plan:
    """The plan for the pool of the route that serves the request."""
    serving = first.serving
    if serving is None:
        return first
    plan, *others = engine.plans(first, serving, request)
    if others and _lacks_servers(plan, request):
        plan = others[0]
    if serving.failover == plan.pool.name and others:
        found.notes.append("the route's failover serves: the other pool has no usable server")
    elif serving.split is not None:
        split = serving.split
        told = split.told(request.index.get(b"cookie", ()))
        weights = ", ".join(f"{pool} {weight}" for pool, weight in split.weights.items())
        found.notes.append(f"the cookie {split.cookie.decode()} says the pool" if told else
                           f"the route has a split ({weights}): another request may get another pool")
    return plan


def _lacks_servers(plan: Plan, request: Request) -> bool:
    choice = plan.pool.choice
    if choice.primaries or choice.backups:
        return False
    try:
        plan.pool.lease(request, ()).abandon()  # a trial
    except NoUsableServer:
        return True
    except CapacityError:
        pass
    return False


class _Picking:
    """The pick of one request."""

    def __init__(self, config: Config, plan: Plan, ledger: Ledger, states: States, slots: PoolSlots) -> None:
        self._plan = plan
        self._pool = plan.pool
        self._config = config.pools[plan.pool.name]
        self._ledger = ledger
        self._states = states
        self._slots = slots

    def explain(self, request: Request, found: Explanation) -> None:
        pool, ledger = self._pool, self._ledger
        found.pool, found.policy = pool.name, self._config.policy
        if pool.sticky is not None:
            request.session = pool.sticky.find(self._plan.told[1])
            own = request.session.server
            found.session = f"of {own.name}" if own is not None else "none; it would begin one"
        choice = pool.choice
        if choice.is_panic:
            found.notes.append("panic: too few servers are up by their checks; all are used")
        if self._config.policy in _BY_CHANCE:
            found.notes.append("the policy draws by chance: another request may get another server")
        waiting, where = self._waiting(pool.only_server(request.session))
        if waiting:
            found.notes.append(f"{waiting} requests wait {where}: this one would wait behind them")
        times = _Times(pool.policy, self._slots, pool.servers)
        before = [(ledger.totals[server.slot], ledger.penalties[server.slot]) for server in pool.servers]
        due = {server for server in choice.trials if self._states.ejection[server.slot] == Ejection.TRIAL_DUE}
        picked: Server | None = None
        try:
            picked = pool.lease(request, (), None, request.session).server
            found.server = picked.name
        except CapacityError as exc:
            found.answer = f"{exc.status}: {exc}"
            if self._config.queue is not None:
                found.notes.append("the pool has a queue: the request would wait in it before it is refused")
        found.key = request.key.decode("latin-1")
        if picked is not None and pool.redirect_status:
            found.answer = f"{pool.redirect_status}: to {(picked.public + self._plan.target).decode('latin-1')}"
        why = _Why(pool, self._states, choice, request, picked, due, [total for total, _ in before],
                   self._config.policy, times)
        for server, (total, penalties) in zip(pool.servers, before, strict=True):
            limit = server.max_connections if server.max_connections < UNLIMITED else 0
            found.servers.append(ServerExplained(server.name, total, penalties, limit, server.weight, times.average_ms(server),
                                                 server is picked, why.of(server, total, penalties)))

    def _waiting(self, only: Server | None) -> tuple[int, str]:
        """How many requests wait in the line of a request that may have the server `only`, or any, and for what."""
        if only is None or self._config.sticky is None or self._config.sticky.on_failure != "wait":
            return self._slots.block[at.P_WAITING], "in the pool's queue"
        segment = self._ledger.segment
        return segment.cells[segment.layout.column(at.C_OWN_WAITING)][only.slot], f"for {only.name}"


class _Times:
    """How long servers take to answer, as the policy knows it at the moment at which this is made."""

    def __init__(self, policy: Policy, slots: PoolSlots, servers: Sequence[Server]) -> None:
        times = getattr(policy, "times", None)
        now = now_us()
        self._ratios: dict[Server, int] = {}
        self._levels: dict[Server, int] = {}
        if isinstance(times, AnswerTimes):
            self._levels = {server: level for server in servers if (level := slots.columns[LEVEL][server.slot])}
            self._ratios = {server: ratio_of(excess) for server in servers if (excess := times.excess(server, now))}

    def average_ms(self, server: Server) -> float | None:
        """Its average; None when it is not known."""
        level = self._levels.get(server)
        return None if level is None else microseconds_of(level) / 1000

    def times_slower(self, server: Server) -> int:
        """How many times slower than the pool it counts; 0: it counts as good as the others."""
        return self._ratios.get(server, 0)


class _Why:
    """Why a server is picked or passed over, in words."""

    def __init__(self, pool: Pool, states: States, choice: UsableServers, request: Request, picked: Server | None,
                 due: set[Server], totals: Sequence[int], policy: str, times: _Times) -> None:
        self._states = states
        self._choice = choice
        self._session = request.session.server if request.session is not None else None
        self._picked = picked
        self._due = due
        self._policy = policy
        self._times = times
        self._order = _order(pool.policy, request.key)
        self._loads = {server: (total, server.weight) for server, total in zip(pool.servers, totals, strict=True)}

    def of(self, server: Server, total: int, penalties: int) -> str:
        if server is self._picked:
            return self._picked_because(server)
        reason = self._unusable(server)
        if reason:
            return reason
        if total >= server.max_connections:
            return f"full: {total} of {server.max_connections} in flight"
        if server.backup and server not in self._choice.primaries and (self._picked is None or not self._picked.backup):
            return "backup: used only while no other server can be"
        return self._beaten(server, total + penalties)

    def _picked_because(self, server: Server) -> str:
        if server is self._session:
            return "the session belongs to it"
        if server in self._due:
            return "it is ejected, its time is over, and this request is its trial"
        if self._order and server in self._order:
            return "the request's key leads to it"
        if slower := self._times.times_slower(server):
            return f"it is slow ({slower} times the pool), and tried with this request or the least loaded nevertheless"
        if self._session is not None:
            return f"the session's server, {self._session.name}, cannot take it"
        return "it is picked by the policy"

    def _unusable(self, server: Server) -> str:
        """Why no pick may choose it; empty when one may."""
        states, slot = self._states, server.slot
        admin = states.admin[slot]
        if admin == Admin.MAINTENANCE:
            return "in maintenance"
        if admin == Admin.DRAIN:
            return "drained" + (": it keeps its sessions and gets no others" if server in self._choice.keeping else "")
        if states.check[slot] > Check.UP and not self._choice.is_panic:
            return f"{'down' if states.check[slot] == Check.DOWN else 'not checked yet'}: {states.note(slot)}"
        if states.is_ejected(slot) and server not in (*self._choice.primaries, *self._choice.backups):
            left_s = (states.ejected_until[slot] - now_ms()) / 1000
            if server in self._due:
                return "ejected: its trial is due, and another request is it"
            if left_s <= 0:
                return "ejected: a request is on trial there"
            return f"ejected for another {left_s:.1f} s: {states.ejection_reason(slot)}"
        return ""

    def _beaten(self, server: Server, load: int) -> str:
        """Why another one was picked, though this one could have been."""
        picked = self._picked
        if picked is None and self._session is not None:
            return f"the session belongs to {self._session.name}, and no other may have it"
        if picked is None:
            return "the pool takes no request at the moment"
        if picked is self._session:
            return f"the session belongs to {picked.name}"
        if picked in self._due:
            return f"this request is the trial of {picked.name}"
        if self._order and picked in self._order:
            if server in self._order and self._order.index(server) < self._order.index(picked):
                return "over its bounded load: the key comes here first, and went on to the next"
            return f"the key leads to {picked.name} first"
        if self._policy == "first":
            return f"{picked.name} comes before it"
        if self._policy in _BLIND:
            return "not drawn" if self._policy in _BY_CHANCE else "not its turn"
        if slower := self._times.times_slower(server):
            return f"slow: it answers, or is silent, {slower} times as long as the pool"
        theirs, weight = self._loads[picked]
        mine_ms, theirs_ms = self._times.average_ms(server), self._times.average_ms(picked)
        if self._policy == "least-time" and mine_ms and theirs_ms:
            if mine_ms * (load + 1) * weight > theirs_ms * (theirs + 1) * server.weight:
                return (f"its answer would come later: {mine_ms:.1f} ms on average with {load} in flight, against "
                        f"{theirs_ms:.1f} ms with {theirs}")
            return "as good, and not its turn"
        if load * weight > theirs * server.weight:
            return f"busier: {load} in flight for a weight of {server.weight}, against {theirs} for {weight}"
        return "not drawn, or not its turn" if self._policy in _BY_CHANCE else "as good, and not its turn"


def _order(policy: Policy, key: bytes) -> list[Server]:
    """The servers for the request's key, the preferred one first; none when the policy does not go by keys."""
    if not isinstance(policy, KeyedPolicy) or not key:
        return []
    return [server for server in policy.order(key) if isinstance(server, Server)]
