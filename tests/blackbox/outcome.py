"""What was seen of a case on both of its sides."""
from __future__ import annotations

from dataclasses import dataclass, field

from .wire import Message


@dataclass
class Outcome:
    """The client's side and the origin's side of one case."""

    replies: list[Message] = field(default_factory=list)  # final responses; interim ones hang on them
    closed: str = "open"  # open, end (FIN) or reset
    malformed: str = ""  # why the client's reader could not go on
    leftover: bytes = b""  # what came after, or instead of, the last response
    requests: list[Message] = field(default_factory=list)  # heads that the origin received for this case
    strays: list[Message] = field(default_factory=list)  # heads without any case's word while this one ran alone
    origin_closed: int = 0  # held connections that the proxy closed
    timeline: list[str] = field(default_factory=list)  # steps that ran out of time

    def whole_requests(self) -> list[Message]:
        return [request for request in self.requests if request.complete]

    def whole_replies(self) -> list[Message]:
        return [reply for reply in self.replies if reply.complete]

    def describe(self) -> str:
        """Both sides in a few lines, for a person."""
        lines = []
        for reply in self.replies:
            interims = "".join(f"{interim.status} " for interim in reply.interims)
            state = "whole" if reply.complete else "cut"
            lines.append(f"reply {interims}{reply.raw_head[:300]!r} {reply.framing} {state} body[{len(reply.body)}]"
                         f" {reply.body[:60]!r} {'; '.join(reply.problems)}")
        lines.append(f"connection {self.closed} {self.malformed} leftover {self.leftover[:120]!r}")
        for request in self.requests + self.strays:
            state = "whole" if request.complete else "cut"
            lines.append(f"origin {request.raw_head[:500]!r} {request.framing} {state} body[{len(request.body)}]"
                         f" {request.raw_body[:80]!r} {'; '.join(request.problems)}")
        return "\n".join(lines + self.timeline)
