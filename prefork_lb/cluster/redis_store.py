"""Redis or Valkey as the store, by redis-py: alone, watched by sentinels, or as Redis Cluster.

All keys have one hash tag, so in Redis Cluster one node has all of them:

    prefork-lb:{NAME}:reports    a hash: each balancer's newest report
    prefork-lb:{NAME}:tables     a hash: by digest the servers that reports count in
    prefork-lb:{NAME}:results    a hash: the results of each balancer that checks, or did
    prefork-lb:{NAME}:part:KEY   a hash for each server with a limit: each balancer's part of it
    prefork-lb:{NAME}:sessions   a stream of learned sessions

All of them are written again by those who need them, so a store that comes back empty loses nothing.
"""
from __future__ import annotations

import re
from typing import Any

import redis
from redis import connection as redis_connection
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from prefork_lb.cluster.store import Received, Sent, StoreError
from prefork_lb.config.cluster import ClusterConfig

# Within a second a balancer has to notice that the store is gone: two waits and the pause between are less.
_TIMEOUT_S = 0.4
_KEPT_S = 3600  # what nobody writes again goes
_MOST_AT_ONCE = 50
_MOST_SESSIONS = 1000  # entries of the stream; each has up to some hundred sessions
_SENTINEL_PORT = 26379
# RedisClusterException is no RedisError. IndexError and such are how redis-py says that a cluster's nodes cannot be found.
_FAILURES = redis.RedisError, RedisClusterException, OSError, ValueError, IndexError, TypeError
# In redis-py's errors: the command with its arguments, which are another report each time, and each sentinel's client with all
# its settings, of which the address says enough.
_COMMAND, _COMMAND_END = "Command # ", " of pipeline caused error: "
_CLIENT, _CLIENT_END = "<redis.client.Redis(", ">)>)> - "
_HOST, _PORT = re.compile(r"[,(]host=([^,)]*)"), re.compile(r"[,(]port=(\d+)")

# Grants each balancer a part of a limit at once or not at all: no two of them are ever granted the same part.
# ARGV: the balancer, seconds; then by server its name, the limit and the part that is wanted. A part of a balancer without a
# report is free.
_GRANT = """
local granted = {}
for i = 3, #ARGV, 3 do
  local key = KEYS[2] .. ARGV[i]
  local others, all = 0, redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    if all[j] ~= ARGV[1] then
      if redis.call('HEXISTS', KEYS[1], all[j]) == 1 then others = others + all[j + 1]
      else redis.call('HDEL', key, all[j]) end
    end
  end
  local part = math.max(0, math.min(tonumber(ARGV[i + 2]), tonumber(ARGV[i + 1]) - others))
  redis.call('HSET', key, ARGV[1], part)
  redis.call('EXPIRE', key, ARGV[2])
  granted[#granted + 1] = part
end
return granted
"""


class RedisStore:
    """One balancer's way to the store."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._client: Any = None  # redis-py's types say little of what a pipeline returns
        prefix = f"prefork-lb:{{{config.name}}}:"
        self._reports, self._tables, self._results = f"{prefix}reports", f"{prefix}tables", f"{prefix}results"
        self._part, self._sessions = f"{prefix}part:", f"{prefix}sessions"

    def exchange(self, sent: Sent) -> Received:
        """As Store.exchange: one pipeline."""
        try:
            if self._client is None:
                self._client = connect(self._config)
            return self._exchange(self._client, sent)
        except _FAILURES as exc:
            raise _away(exc) from exc

    def leave(self, balancer: str) -> None:
        """As Store.leave."""
        try:
            if self._client is not None:
                self._client.hdel(self._reports, balancer)
        except _FAILURES as exc:
            raise _away(exc) from exc

    def _exchange(self, client: Any, sent: Sent) -> Received:
        pipe = client.pipeline(transaction=False)
        take: list[tuple[str, int]] = []
        # In a cluster redis-py asks another node, always the same one, for the keys of a script, unless it is told the node.
        where = {"target_nodes": client.get_node_from_key(self._reports)} if self._config.kind == "cluster" else {}

        def ask(what: str) -> None:
            take.append((what, len(pipe)))

        if sent.gone:
            pipe.hdel(self._reports, *sent.gone)
            pipe.hdel(self._results, *sent.gone)
        pipe.hset(self._reports, sent.balancer, sent.report)
        pipe.expire(self._reports, _KEPT_S)
        ask("reports")
        pipe.hgetall(self._reports)
        ask("time")
        # By a script: in a cluster the plain command belongs to no key, and so to no node. redis-py has no `eval` there.
        pipe.execute_command("EVAL", "return redis.call('TIME')", 1, self._reports, **where)
        if sent.tables:
            pipe.hset(self._tables, mapping=sent.tables)
            pipe.expire(self._tables, _KEPT_S)
        if sent.wanted_tables:
            ask("tables")
            pipe.hmget(self._tables, sent.wanted_tables)
        if sent.results is not None:
            pipe.hset(self._results, sent.balancer, sent.results)
            pipe.expire(self._results, _KEPT_S)
        if sent.results_of:
            ask("results")
            pipe.hget(self._results, sent.results_of)
        if sent.parts:
            ask("parts")
            arguments = [item for key, pair in sent.parts.items() for item in ("\n".join(key), *pair)]
            pipe.execute_command("EVAL", _GRANT, 2, self._reports, self._part, sent.balancer, _KEPT_S, *arguments,
                                 **where)
        if sent.sessions is not None:
            pipe.xadd(self._sessions, {"s": sent.sessions}, maxlen=_MOST_SESSIONS)
            pipe.expire(self._sessions, _KEPT_S)
        if sent.sessions_after:
            ask("sessions")
            pipe.xread({self._sessions: sent.sessions_after}, count=_MOST_AT_ONCE)
        answers = pipe.execute()
        received = Received(0, [])
        for what, place in take:
            self._fill(received, what, answers[place], sent)
        return received

    @staticmethod
    def _fill(received: Received, what: str, answer: Any, sent: Sent) -> None:
        """Take over one of the answers."""
        if what == "reports":
            received.reports = list(answer.values())
        elif what == "time":
            received.now_ms = int(answer[0]) * 1000 + int(answer[1]) // 1000
        elif what == "tables":
            received.tables = {key: table for key, table in zip(sent.wanted_tables, answer, strict=True) if table is not None}
        elif what == "results":
            received.results = answer
        elif what == "parts":
            received.parts = dict(zip(sent.parts, map(int, answer), strict=True))
        else:
            received.sessions_after = sent.sessions_after
            entries = [entry for _, found in (answer.items() if isinstance(answer, dict) else answer or ()) for entry in found]
            for number, fields in entries:
                received.sessions.append((int(number.partition(b"-")[0]), fields[b"s"]))
                received.sessions_after = number


def connect(config: ClusterConfig) -> Any:
    """A client. It connects when it is used; in a cluster, and with sentinels, it looks for the node now."""
    waits: dict[str, Any] = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
    if config.kind == "cluster":
        return RedisCluster.from_url(config.url, **waits)
    if config.kind == "single":
        return redis.Redis.from_url(config.url, single_connection_client=True, **waits)
    parse_url: Any = redis_connection.parse_url
    options: dict[str, Any] = dict(parse_url(config.url))
    first = options.pop("host"), options.pop("port", _SENTINEL_PORT)
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    sentinels = [first, *(_host_and_port(text) for text in config.sentinels)]
    login = {key: options[key] for key in ("username", "password", "ssl") if key in options}
    make: Any = Sentinel
    return make(sentinels, sentinel_kwargs=login | waits, **options, **waits).master_for(config.service)


def _away(exc: Exception) -> StoreError:
    """The error that says why; the same text for the same cause."""
    text = str(exc)
    if text.startswith(_COMMAND):
        text = text.rpartition(_COMMAND_END)[2]
    first, *clients = text.split(_CLIENT)
    return StoreError(f"{type(exc).__name__}: {first}{''.join(map(_address_of, clients))}")


def _address_of(client: str) -> str:
    """A client's address, and what redis-py says behind the client."""
    settings, end, behind = client.partition(_CLIENT_END)
    host, port = _HOST.search(settings), _PORT.search(settings)
    return f"{host[1]}:{port[1]} {behind}" if end and host and port else client


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
