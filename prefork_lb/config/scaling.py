"""`[pools.NAME.scaling]`: servers that the balancer starts and ends itself, as many as the pool needs."""
from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from prefork_lb.config.section import Seconds, Section, meta

MOST_SERVERS = 1000

Count = Annotated[int, Meta(ge=0, le=MOST_SERVERS)]


class ScheduleConfig(Section, frozen=True):
    """A time of the week from which on, until the next one in the list, a pool has at least so many servers."""

    at: Annotated[str, meta('Local time: "Mon-Fri 08:00", "Sat,Sun 10:30"; "20:00" is every day.')]
    min: Annotated[Count, meta("The least number of servers from then on.")]


class ScalingConfig(Section, frozen=True):
    """Servers of the pool that the balancer starts and ends itself, see [scaling.md](scaling.md). A pool with this section may
    have `servers`, too; these stay as they are. A change by a reload applies to servers that are started after it."""

    max: Annotated[int, meta("The largest number of servers.", ge=1, le=MOST_SERVERS)]
    target: Annotated[float, meta(
        "Requests in flight for each server, on average; those that wait in the pool's queue count, too.", gt=0, le=1_000_000
    )]
    min: Annotated[Count, meta("The least number of servers; 0: the last one ends after `idle`.")] = 1
    driver: Annotated[Literal["process", "systemd", "command"], meta(
        '"process": a server is a process that is started with `command`; "systemd": a unit, started by systemctl; "command": '
        "whatever `up` starts, somewhere."
    )] = "process"
    cpu: Annotated[float, meta(
        "CPU time that a server may use, in percent of one core, on average; above it there are more servers, whatever `target` "
        'says. 0: it does not matter. (`process`, `systemd`)', ge=0, le=100_000
    )] = 0.0
    queue_time: Annotated[float, meta(
        "Seconds that requests may wait in the pool's queue, on average; above it there is one server more at a time, whatever "
        "`target` says. 0: it does not matter.", ge=0, le=3600
    )] = 0.0
    stable_window: Annotated[float, meta("Seconds over which the average is taken.", ge=1, le=3600)] = 60.0
    panic_window: Annotated[float, meta(
        "Seconds of a shorter average. When that asks for twice the servers that run, it applies, and no server is ended before "
        "`stable_window` has passed without such a moment.", ge=1, le=3600
    )] = 6.0
    max_up: Annotated[float, meta(
        "The most servers that are wanted at a time, as a multiple of those that run; one more is always allowed.", gt=1, le=1000
    )] = 10.0
    max_down: Annotated[float, meta(
        "The same for fewer servers: 2 is at most half of them at a time.", gt=1, le=1000
    )] = 2.0
    down_delay: Annotated[float, meta(
        "Seconds for which fewer servers must have been enough before any is ended.", ge=0, le=86400
    )] = 0.0
    idle: Annotated[Seconds, meta("Seconds without a request until the last server is ended, where `min` is 0.")] = 300.0
    schedules: Annotated[tuple[ScheduleConfig, ...], meta(
        'Times of the week with a `min` of their own, as in `{ at = "Mon-Fri 08:00", min = 6 }`: each holds until the next one.'
    )] = ()
    max_connections: Annotated[int, meta("`max_connections` of each of these servers; 0: no limit.", ge=0, le=1_000_000)] = 0
    start_timeout: Annotated[Seconds, meta("Seconds from the start of a server until its check must have passed.")] = 60.0
    drain_timeout: Annotated[Seconds, meta("Seconds for the requests of a server that is to end; then it is ended.")] = 300.0
    stop_timeout: Annotated[Seconds, meta("Seconds from SIGTERM to SIGKILL.")] = 30.0
    max_memory: Annotated[int, meta(
        "MiB of memory of a server's processes above which it is replaced; 0: no limit. (`process`, `systemd`)", ge=0, le=1 << 24
    )] = 0
    max_requests: Annotated[int, meta("Requests after which a server is replaced; 0: no limit.", ge=0, le=1 << 40)] = 0
    max_age: Annotated[float, meta("Seconds after which a server is replaced; 0: no limit.", ge=0, le=366 * 86400)] = 0.0
    replace_after: Annotated[float, meta(
        "Seconds for which a server's check (`[pools.NAME.health]`) must have failed until the server is replaced; 0: never.",
        ge=0, le=366 * 86400
    )] = 300.0
    addresses: Annotated[str, meta(
        'Addresses of the servers: "127.0.0.1:9000-9099", "unix:/run/app/{n}.sock", or "auto" for free ports of 127.0.0.1, which '
        "is the default of `process`. For `systemd`, server 1 has the first port."
    )] = ""
    command: Annotated[tuple[str, ...], meta(
        "`process`: program and arguments, without a shell; `{address}`, `{port}` and `{n}` stand for the server's own."
    )] = ()
    directory: Annotated[str, meta("`process`: its working directory; none: the balancer's.")] = ""
    environment: Annotated[dict[str, str], meta("`process`: further variables of its environment, as a table.")] = {}
    user: Annotated[str, meta("`process`: the user that it runs as, with all groups of this user; none: the balancer's.")] = ""
    group: Annotated[str, meta("`process`: its group; none: that of `user`.")] = ""
    umask: Annotated[str, meta("`process`: its umask, in octal digits; none: the balancer's.", pattern=r"^([0-7]{3,4})?\Z")] = ""
    limits: Annotated[dict[str, Annotated[int, Meta(ge=0, le=1 << 62)]], meta(
        "`process`: its resource limits, as in `{ nofile = 4096, core = 0 }`; names are those of setrlimit(2)."
    )] = {}
    log: Annotated[str, meta(
        "`process`: file that its output is appended to; none: it goes where the balancer's error log goes."
    )] = ""
    unit: Annotated[str, meta('`systemd`: template unit, as in "app@{n}.service"; `{port}` stands for the port.')] = ""
    up: Annotated[tuple[str, ...], meta(
        "`command`: program and arguments that start a server and print its address."
    )] = ()
    down: Annotated[tuple[str, ...], meta("`command`: program and arguments that end the server in $PREFORK_LB_ADDRESS.")] = ()
