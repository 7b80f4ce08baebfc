"""The hub: one epoll, the timers, and the greenlets that wait for either.

Facts of the world and what they force on us:

- epoll_ctl costs as much as a small send. So the hub registers a descriptor once, when its channel is made, edge-triggered
  and for all events. `Channel.ready` keeps each event until an operation finds that it is used up.
- epoll reports an edge once. So a greenlet may wait only after it saw EAGAIN, or a short read, since the last event: then the
  next arrival is a new edge. The end of the peer's side is an edge as well, and stays in `ready` for good.
- A greenlet costs some 6 KiB while it waits. So a connection that only waits for its client holds no greenlet. When an event
  comes, the hub calls the channel's `owner`, and the owner runs a job on a spare greenlet.
- epoll returns a limited number of events at once, and to handle them may take seconds. So when a wait is over its deadline,
  its event may have come long ago and be behind others. The hub looks at the descriptor. If it is ready, the wait goes on until
  its event comes, or a later round had room for the event and brought none.
- The kernel gives the number of a closed descriptor to the next one that is opened. epoll returns many events at once, and a
  later one of them may be for a channel that was closed just now. So the hub closes descriptors at the end of a round.
- Greenlets are not preempted: a greenlet runs until it waits, and a greenlet with fast peers never waits (`green.turns`).

The hub and its greenlets run in one thread. Other threads may call `wake` only.
"""
from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
from collections import deque
from collections.abc import Callable
from typing import Final

from greenlet import getcurrent, greenlet

from prefork_lb.clock import Clock, monotonic
from prefork_lb.green.channel import HALF_CLOSED, NEVER, READ, WRITE, Channel, SocketLike
from prefork_lb.green.rounds import make_rounds
from prefork_lb.green.turns import Turns
from prefork_lb.net.readable import Readable

_EVERYTHING: Final = READ | WRITE | HALF_CLOSED | select.EPOLLET
_EVENTS_AT_ONCE: Final = 256
_SPARE_GREENLETS: Final = 128
_OVERDUE: Final = -NEVER  # a channel's deadline when it is over but the descriptor is ready: its event may be behind others
_LOOK_AGAIN_S: Final = 0.001
_MOST_FORGOTTEN: Final = 1000

Job = Callable[[], None]

log = logging.getLogger("prefork_lb")


class Timer:
    """Something to do at an instant, unless it is cancelled before."""

    __slots__ = ("callback",)

    def __init__(self, callback: Job) -> None:
        self.callback: Job | None = callback

    def cancel(self) -> None:
        """Drop the callback. The entry stays in the heap until its time: to search for it would cost more."""
        self.callback = None


class Hub:
    """The loop. `run` is called in the thread's main greenlet; jobs run in greenlets whose parent is the main one."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self.clock = clock
        self.now = clock()  # monotonic seconds, read once a round and before each turn: as old as the round is long
        self.events_this_round = 0
        self._most_events = _EVENTS_AT_ONCE
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._timers: list[tuple[float, int, Channel | Timer]] = []
        self._forgotten = 0  # upper bound: timer entries whose channel has ended
        self._number = itertools.count()
        self._soon: deque[Job] = deque()
        self.turns = Turns(self)
        self._calls: deque[Job] = deque()  # from other threads
        self._ended: list[SocketLike | int] = []
        self._spare: list[greenlet] = []
        self._watchers: dict[int, Job] = {}
        self._rounds = make_rounds(self._epoll, self._channels, self._watchers)
        self._main = getcurrent()
        self.switch: Callable[[], object] = self._main.switch  # from a greenlet: wait
        self._stopped = False
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.watch(self._wake_reader, self._woken)

    # -- descriptors -------------------------------------------------------------------------------------------

    def register(self, channel: Channel) -> None:
        """Begin to collect a channel's events."""
        self._epoll.register(channel.descriptor, _EVERYTHING)
        self._channels[channel.descriptor] = channel

    def end(self, channel: Channel, connected: SocketLike | None) -> None:
        """Close the channel's socket, or its descriptor where it has none, at the end of this round. Greenlets that wait for the
        channel are resumed."""
        descriptor = channel.descriptor
        if descriptor >= 0:
            self._channels.pop(descriptor, None)
            channel.descriptor = -1
            self._ended.append(descriptor if connected is None else connected)
            if channel.looked_at < NEVER:
                self._forgotten += 1
                if self._forgotten > _MOST_FORGOTTEN and self._forgotten > len(self._timers) // 2:
                    self._drop_forgotten()
            if channel.reader is not None or channel.writer is not None:
                self.call_at(self.now, channel.break_off)

    def _drop_forgotten(self) -> None:
        """Remove the entries of ended channels. With one connection for each request they would pile up for a minute."""
        self._timers[:] = [entry for entry in self._timers if isinstance(entry[2], Timer) or entry[2].descriptor >= 0]
        heapq.heapify(self._timers)
        self._forgotten = 0

    def forget(self, channel: Channel) -> None:
        """Collect the channel's events no longer; its descriptor stays open."""
        self._epoll.unregister(channel.descriptor)
        del self._channels[channel.descriptor]
        channel.descriptor = -1

    def watch(self, descriptor: int, callback: Job) -> None:
        """Call `callback` in the hub as long as the descriptor is readable (level-triggered)."""
        self._watchers[descriptor] = callback
        self._epoll.register(descriptor, READ)

    def pause(self, descriptor: int, paused: bool) -> None:
        """Stop the calls for a watched descriptor, or start them again."""
        self._epoll.modify(descriptor, 0 if paused else READ)

    def unwatch(self, descriptor: int) -> None:
        """End the calls for good."""
        if self._watchers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # -- time --------------------------------------------------------------------------------------------------

    def arm(self, channel: Channel, deadline: float) -> None:
        """Set the channel's deadline. This is cheap when the timers already check the channel before it: no new entry is made."""
        channel.deadline = deadline
        if deadline < channel.looked_at:
            channel.looked_at = deadline
            heapq.heappush(self._timers, (deadline, next(self._number), channel))

    def call_at(self, when: float, callback: Job) -> Timer:
        """Call `callback` in the hub at the instant `when`."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (when, next(self._number), timer))
        return timer

    @property
    def waiting_timers(self) -> int:
        """How many entries the heap has. Cancelled timers and ended channels count until they are dropped."""
        return len(self._timers)

    def limit_round(self, events: int) -> None:
        """Handle at most `events` events in a round; 0: the default."""
        self._most_events = events or _EVENTS_AT_ONCE

    def every(self, interval_s: float, task: Job) -> None:
        """Call `task` in the hub at every interval. An exception is logged, and the calls go on."""
        def again() -> None:
            try:
                task()
            except Exception:
                log.exception("a task of the hub failed; it goes on in %g s", interval_s)
            self.call_at(self.now + interval_s, again)

        self.call_at(self.now + interval_s, again)

    # -- greenlets ---------------------------------------------------------------------------------------------

    def run_job(self, job: Job) -> None:
        """Run `job` on a greenlet at once; return when the job ends or waits for the first time. Called in the hub."""
        spare = self._spare
        if spare:
            spare.pop().switch(job)
        else:
            greenlet(self._work, self._main).switch(job)

    def soon(self, job: Job) -> None:
        """Run `job` on a greenlet of its own in the next round."""
        self._soon.append(job)

    def _work(self, job: Job) -> None:
        spare, switch = self._spare, self.switch
        while True:
            try:
                job()
            except Exception:
                log.exception("internal error")
            if len(spare) >= _SPARE_GREENLETS:
                return
            spare.append(getcurrent())
            del job  # a spare greenlet must not keep a connection's objects alive
            job = switch()  # type: ignore[assignment]

    def sleep(self, seconds: float) -> None:
        """Let other greenlets run for a while."""
        waiter = getcurrent()
        timer = self.call_at(self.now + seconds, waiter.switch)
        try:
            self.switch()
        finally:
            timer.cancel()

    def wake(self, callback: Job) -> None:
        """Call `callback` in the hub, soon. May be called in any thread."""
        self._calls.append(callback)
        try:
            os.write(self._wake_writer, b"!")
        except BlockingIOError:
            pass  # the pipe is full, so the hub will wake and run all calls

    def _woken(self) -> None:
        try:
            os.read(self._wake_reader, 4096)
        except BlockingIOError:
            pass
        while self._calls:
            self._calls.popleft()()

    # -- the loop ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let `run` return after this round."""
        self._stopped = True

    def run(self) -> None:
        """Handle events until `stop`."""
        self._stopped = False
        rounds, soon, ended, timers = self._rounds, self._soon, self._ended, self._timers
        clock, turns = self.clock, self.turns.waiting
        while not self._stopped:
            if soon or turns:
                wait_s = 0.0
            elif timers:
                wait_s = max(0.0, timers[0][0] - clock())
            else:
                wait_s = -1.0
            most = self._most_events
            count = rounds.collect(wait_s, most)
            self.now = began = clock()
            self.events_this_round = count + len(turns)
            rounds.deliver()
            if timers and timers[0][0] <= self.now:
                self._run_timers(is_round_full=count == most)
            for _ in range(len(soon)):
                self.run_job(soon.popleft())
            if turns:
                # Turns get as long as the rest of the round took. So turns and events get half of the loop each.
                self.turns.run(2 * clock() - began)
            if ended:
                for connected in ended:
                    if isinstance(connected, int):
                        os.close(connected)
                    else:
                        connected.close()
                ended.clear()

    def _run_timers(self, is_round_full: bool) -> None:
        timers, now = self._timers, self.now
        while timers and timers[0][0] <= now:
            when, _, target = heapq.heappop(timers)
            if isinstance(target, Timer):
                if target.callback is not None:
                    target.callback()
            elif target.looked_at == when:  # else a later `arm` made an earlier entry, and this one is stale
                target.looked_at = NEVER
                if target.descriptor < 0:
                    continue
                if target.deadline > now:
                    self.arm(target, target.deadline)
                elif is_round_full if target.deadline == _OVERDUE else self._is_ready(target):
                    self.arm(target, now + _LOOK_AGAIN_S)
                    target.deadline = _OVERDUE
                else:
                    self._expired(target)

    @staticmethod
    def _is_ready(channel: Channel) -> bool:
        """Whether there is what the channel is waited for, whatever the events have said so far."""
        wanted = WRITE if channel.writer is not None else 0
        if channel.reader is not None or not wanted:
            wanted |= READ | HALF_CLOSED
        return Readable(channel.descriptor, wanted).now()

    @staticmethod
    def _expired(channel: Channel) -> None:
        channel.deadline = NEVER
        if not channel.resume(None) and channel.owner is not None:
            channel.owner.on_deadline()

    def close(self) -> None:
        """Close epoll and the wake pipe. Open channels stay open."""
        self._epoll.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
