"""The values of the API, as JSON Schema (2020-12) describes them. A test holds the answers against this."""
from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_HEX = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join([f"({_HEX}:){{7}}{_HEX}", f"({_HEX}:){{1,7}}:", f":(:{_HEX}){{1,7}}", "::",
                  *(f"({_HEX}:){{1,{7 - number}}}(:{_HEX}){{1,{number}}}" for number in range(1, 7))])
_LABEL = "[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_NAME = f"({_LABEL}[.]){{0,3}}[A-Za-z_]([0-9A-Za-z_-]{{0,40}}[0-9A-Za-z_])?"
_HOST = f"({_NAME}|{_OCTET}([.]{_OCTET}){{3}}|\\[({_IPV6})\\])"
_PORT = ":([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
# Somewhat narrower than what is taken, in names that nobody has.
_ADDRESS = f"^({_HOST}{_PORT}|https?://{_HOST}({_PORT})?|unix:/[ -~]{{1,100}})$"

MOST_WEIGHT, MOST_CONNECTIONS, MOST_SPLIT_WEIGHT = 1000, 1_000_000, 1_000_000
STATES = ("up", "ready", "down", "checking", "ejected", "trial", "draining", "maintenance")
ADMIN_STATES = ("ready", "drain", "maintenance")


def text(doc: str, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", "description": doc} | more


def integer(doc: str, least: int | None = 0, **more: Any) -> Schema:
    """A whole number."""
    return {"type": "integer", "description": doc} | ({"minimum": least} if least is not None else {}) | more


def number(doc: str) -> Schema:
    """A number that is not negative."""
    return {"type": "number", "minimum": 0, "description": doc}


def flag(doc: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": doc}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    return schema | {"type": [schema["type"], "null"]}


def array(items: Schema, doc: str) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "description": doc}


def ref(name: str) -> Schema:
    """One of the schemas here."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(doc: str, optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object with these members and no others; all are there but `optional` ones."""
    return {"type": "object", "description": doc, "additionalProperties": False,
            "required": [name for name in properties if name not in optional], "properties": properties}


_NOT_KEPT = "null: the instance keeps no statistics, or, of rates, has been looked at only once"
_CLASSES = {f"{number}xx": integer(f"Answers {number}xx.") for number in range(1, 6)}
_CODES = {"anyOf": [record("Answers by class.", **_CLASSES), {"type": "null"}],
          "description": f"Answers to clients by class; {_NOT_KEPT}."}
_TIMES = {f"p{share}_ms": maybe(number(f"Milliseconds within which {share} % of the requests of the last 10 s were answered; "
                                       "null: there were none.")) for share in (50, 99)}

SERVER = record(
    "A server of a pool.",
    pool=text("The pool's name."),
    address=text('"HOST:PORT", "[IPv6]:PORT", "https://HOST:PORT" or "unix:/path".'),
    state=text("Its condition in a word.", enum=list(STATES)),
    reason=text('Why it is in this condition; "" when it is well.'),
    admin=text("What the operator has set.", enum=list(ADMIN_STATES)),
    check=text("What its checks say.", enum=["none", "up", "checking", "down"]),
    note=text("The result of the last check."),
    checked_s=maybe(number("Seconds since the last check; null: there was none.")),
    ejected_s=number("Seconds until a trial is due; 0: it is not ejected."),
    usable=flag("Whether ordinary requests go to it."),
    weight=integer("In force.", 1),
    weight_configured=integer("That of the configuration.", 1),
    max_connections=integer("The most requests in flight on it, in force; 0: no limit."),
    max_connections_configured=integer("That of the configuration."),
    backup=flag("Used only while no other server is usable."),
    source=text("What has put it there.", enum=["configuration", "operator", "discovery", "scaling"]),
    origin=text("Whether the configuration names it, or it was added at run time.", enum=["configuration", "runtime"]),
    in_flight=integer("Requests in flight on it, over all workers."),
    requests=integer("Requests sent to it so far, further attempts among them."),
    failures=integer("Of those, the ones that failed."),
    failed_at=maybe(number("When one last got no whole answer, in seconds since the epoch; null: none has.")),
    failure=text('Why that one got none, in words; "": none has.'),
    rate=maybe(number("Requests sent to it in a second; null: it has been looked at only once.")),
    codes=_CODES,
    bytes_in=maybe(integer(f"Bytes of bodies from clients; {_NOT_KEPT}.")),
    bytes_out=maybe(integer(f"Bytes of bodies to clients; {_NOT_KEPT}.")),
    latency_ms=maybe(number("Mean milliseconds of its requests of the last 10 s; null: there were none.")),
    sessions=maybe(integer("Sessions that the pool stores for it (`learn`); of a drained server in a pool with `cookie` or "
                           "`route` the requests of sessions in the last minute; else null.")),
    sessions_left=maybe(text('What a drained server still has of sessions, in words; "": nothing. null: it is not drained, or '
                             "keeps none.")),
    etag=text("Stands for what can be changed: send it with If-Match."),
)

_SCALING = record(
    "The servers that the balancer starts itself.",
    mode=text("`fixed`: an operator has set their number.", enum=["auto", "fixed"]),
    max=integer("The most that the configuration allows.", 1),
    wanted=integer("How many there should be."), running=integer("How many take requests."),
    starting=integer("How many are starting."), ending=integer("How many finish their requests, or end."),
    why=text("Why so many are wanted, in words."),
    rolling=flag("Whether all are being replaced by new ones."),
)

_DISCOVERY = record(
    "Servers that are listed elsewhere.",
    source=maybe(text("Where the list is.")),
    state=text("How the last look went; `waiting`: there was none yet.", enum=["waiting", "good", "failing"]),
    last_ok=maybe(number("When there was a good list last, in seconds since the epoch.")),
    error=text('Why the last look failed, or some servers of the list are not in the pool; "": all is well.'),
    servers=integer("Servers in the last good list."),
)

POOL = record(
    "A pool and its servers.",
    name=text("Its name."),
    policy=maybe(text("How a server is picked.")),
    mode=maybe(text("`proxy` or `redirect`.")),
    sticky=text('How sessions are kept; "": they are not.'),
    in_flight=integer("Requests in flight, over all workers."), in_flight_limit=integer("The most; 0: no limit."),
    waiting=integer("Requests in the queue."), queue_size=integer("The most; 0: there is no queue."),
    retries=integer("Retries under way."), retries_limit=integer("The most; 0: no limit."),
    refused=integer("Requests and retries that a limit of the pool has refused so far."),
    panic=flag("Too few servers are up by their checks: all are used."),
    tripped=array(text("`in_flight`, `retries`, `queue` or `max_connections`."), "The limits that are reached at this moment."),
    requests=maybe(integer(f"Requests of clients so far; {_NOT_KEPT}.")),
    rate=maybe(number(f"Requests in a second; {_NOT_KEPT}.")),
    codes=_CODES,
    error_rate=maybe(number(f"Answers 5xx in a second; {_NOT_KEPT}.")),
    **_TIMES,
    scaling={"anyOf": [_SCALING, {"type": "null"}], "description": "null: the balancer starts none of its servers."},
    discovery={"anyOf": [_DISCOVERY, {"type": "null"}], "description": "null: it discovers no servers."},
    servers=array(ref("Server"), "Its servers."),
)

WORKER = record(
    "A worker process.",
    pid=integer("Its pid.", 1), generation=integer("The generation of the server table that it goes by."),
    in_flight=integer("Its requests in flight."),
    clients=maybe(integer("Its client connections; null: it does not tell.")),
    lingers_s=integer("Seconds for which it has lingered: it was replaced and serves what it has. 0: it does not."),
    lag_ms=maybe(number("How far its loop lags, in milliseconds; null: it does not measure this.")),
    compiled=flag("Whether it has the compiled modules. Without them a request costs it more."),
)

TOTALS = record(
    "Sums over all pools, and what reached no pool.",
    requests=maybe(integer(f"Requests of clients so far; {_NOT_KEPT}.")),
    rate=maybe(number(f"Requests in a second; {_NOT_KEPT}.")),
    in_flight=integer("Requests in flight."), waiting=integer("Requests in queues."),
    clients=maybe(integer("Client connections; null: no worker tells.")),
    errors=maybe(integer(f"Answers 5xx so far; {_NOT_KEPT}.")),
    error_rate=maybe(number(f"Answers 5xx in a second; {_NOT_KEPT}.")),
    bytes_in=maybe(integer(f"Bytes of bodies from clients; {_NOT_KEPT}.")),
    bytes_out=maybe(integer(f"Bytes of bodies to clients; {_NOT_KEPT}.")),
    bytes_out_rate=maybe(number(f"The same in a second; {_NOT_KEPT}.")),
    **_TIMES,
)

BALANCER = record(
    "A balancer that shares what it knows with others.",
    name=text("Its name."), self=flag("Whether it is the one that is asked."),
    together=flag("Whether it shares now; it goes on by itself otherwise."),
    in_flight=integer("Its requests in flight, as it reported last."),
    silent_s=number("Seconds since its last report."),
    round_ms=number("Milliseconds that its last exchange with the store took."),
    checks=flag("Whether its checks of servers hold for all."),
)

_WEIGHTS = {"type": "object", "additionalProperties": integer("Its weight.", maximum=MOST_SPLIT_WEIGHT)}

SPLIT = record(
    "The split of a route: its requests go to several pools by weight.",
    id=text("Stands for what the route asks for: it stays over reloads."),
    route=integer("Its number in the configuration.", 1),
    asks=text("What the route asks for, in words."),
    cookie=text('The cookie by which clients stay with their pool; "": they do not.'),
    weights=_WEIGHTS | {"description": "Those in force, by pool."},
    weights_configured=_WEIGHTS | {"description": "Those of the configuration, by pool."},
    etag=text("Stands for the weights: send it with If-Match."),
)

INSTANCE = record(
    "An instance: all that the dashboard shows.",
    version=text("Of prefork_lb."), now=number("Seconds since the epoch."), started=integer("Seconds since the epoch."),
    master=integer("The pid of the newest gunicorn master; 0: there is none."), generation=integer("Of the server table."),
    controller={"anyOf": [record("The controller.", pid=integer("Its pid.", 1),
                                 silent_s=maybe(number("Seconds since its last sign of life."))), {"type": "null"}],
                "description": "null: none is at work, so servers are not checked."},
    statistics=flag("Whether the instance keeps statistics."),
    totals=ref("Totals"), workers=array(ref("Worker"), "The workers."), pools=array(ref("Pool"), "The pools, by name."),
    splits=array(ref("Split"), "The splits of routes, in the order of the configuration."),
    cluster={"anyOf": [array(ref("Balancer"), "Those that share, by name."), {"type": "null"}],
             "description": "null: the configuration has no `[cluster]`."},
)

EVENT = record(
    "Something that happened.",
    seq=integer("Counts from 1.", 1), at=number("Seconds since the epoch."), kind=text("What it is, such as `server-down`."),
    pool=text('The pool; "" where there is none.'), server=text('The server\'s address; "" where there is none.'),
    text=text("What happened and why, in words."),
    who=text('The operator, "controller" or "worker PID"; "" where there is none.'),
)

PROBLEM = record(
    "Why a request was not done (RFC 9457).", ("place",),
    type=text("Always about:blank."), title=text("The status in words."), status=integer("The status.", 400),
    detail=text("What is wrong, and what is expected."), place=text("The part of the request that is meant."),
)

SESSION = record("The caller.", role=text("What it may do; null: nothing, a token is needed.", enum=["operator", "reader", None],
                                           type=["string", "null"]),
                 name=text("Its name in the log."),
                 csrf=text("What a browser sends in X-CSRF-Token with a change."))

_WEIGHT = integer("Its share of the load against the other servers.", 1, maximum=MOST_WEIGHT)
_CONNECTIONS = integer("The most requests in flight on it; 0: no limit.", maximum=MOST_CONNECTIONS)

CHANGE = record(
    "What to change; what is left out stays.", ("admin", "weight", "max_connections"),
    admin=text("`drain`: no new requests; `maintenance`: and no checks.", enum=list(ADMIN_STATES)),
    weight=maybe(_WEIGHT | {"description": "Its share of the load; null: that of the configuration."}),
    max_connections=maybe(_CONNECTIONS | {"description": "The most requests in flight on it, 0: no limit; null: that of the "
                                                         "configuration."}),
) | {"minProperties": 1}

SCALE = record(
    "What to change.",
    scale={"description": "How many servers there should be; `auto`: as many as the rule wants.",
           "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "enum": ["auto"]}]},
)

SPLIT_CHANGE = record(
    "What to change.",
    weights={"type": "object", "minProperties": 1, "description": "By pool; pools that are left out stay as they are.",
             "additionalProperties": maybe(integer("The weight of its share of the requests; null: that of the configuration.",
                                                   maximum=MOST_SPLIT_WEIGHT))},
)

ROLL = record("How servers are replaced.", ("surge",), surge=integer("So many new ones at a time; 1 where it is missing.", 1))

NEW_SERVER = record(
    "A server to add.", ("weight", "max_connections", "backup"),
    address=text('"HOST:PORT", "[IPv6]:PORT", "https://HOST:PORT" or "unix:/path".', pattern=_ADDRESS),
    weight=_WEIGHT, max_connections=_CONNECTIONS, backup=flag("Used only while no other server is usable."),
)

SCHEMAS: dict[str, Schema] = {
    "Instance": INSTANCE, "Totals": TOTALS, "Worker": WORKER, "Balancer": BALANCER, "Pool": POOL, "Server": SERVER,
    "Event": EVENT, "Session": SESSION, "Problem": PROBLEM, "Change": CHANGE, "NewServer": NEW_SERVER, "Scale": SCALE,
    "Roll": ROLL, "Split": SPLIT, "SplitChange": SPLIT_CHANGE,
}
