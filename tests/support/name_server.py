"""A name server for a few names, on loopback: what it answers is set while it runs."""
from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.support.place import HOST

_LOOK_S = 0.05

Records = dict[tuple[str, str], tuple[int, tuple[str, ...]]]


class NameServer:
    """A context manager. Answers over UDP and TCP; names without records do not exist."""

    def __init__(self) -> None:
        self._udp, self._tcp = _bound()
        self.address = "{}:{}".format(*self._udp.getsockname())
        self._records: Records = {}
        self.additional: Records = {}  # sent with every answer
        self.is_silent = False
        self.is_refusing = False
        self.truncates = False  # over UDP
        self.questions: list[str] = []
        self._is_closed = False
        self._threads = [threading.Thread(target=serve, daemon=True) for serve in (self._serve_udp, self._serve_tcp)]
        for each in (self._udp, self._tcp):
            each.settimeout(_LOOK_S)
        for thread in self._threads:
            thread.start()

    def set(self, name: str, kind: str, values: Iterable[str], ttl: int = 0) -> None:
        """Answer with these values from now on; none: the name is there, and has nothing of this kind."""
        self._records[name, kind] = ttl, tuple(values)

    def forget(self) -> None:
        """No name exists any more."""
        self._records.clear()

    def __enter__(self) -> NameServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_closed = True
        for thread in self._threads:
            thread.join()
        for each in (self._udp, self._tcp):
            each.close()

    def _serve_udp(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                data, client = self._udp.recvfrom(65536)
                if not self.is_silent:
                    self._udp.sendto(self._answer(data, self.truncates), client)

    def _serve_tcp(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError), self._tcp.accept()[0] as connection:
                connection.settimeout(5)
                length = struct.unpack("!H", connection.recv(2))[0]
                answer = self._answer(connection.recv(length), is_cut=False)
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, data: bytes, is_cut: bool) -> bytes:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.questions.append(f"{name} {kind}")
        if self.is_refusing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif is_cut:
            answer.flags |= dns.flags.TC
        elif not any(known == name for known, _ in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            ttl, values = self._records.get((name, kind), (0, ()))
            if values:
                answer.answer.append(dns.rrset.from_text(question.name, ttl, "IN", kind, *values))
            for (told, of_kind), (its_ttl, its_values) in self.additional.items():
                answer.additional.append(dns.rrset.from_text(f"{told}.", its_ttl, "IN", of_kind, *its_values))
        return answer.to_wire(max_size=65535)


def _bound() -> tuple[socket.socket, socket.socket]:
    """A UDP and a TCP socket on one port."""
    while True:
        tcp = socket.create_server((HOST, 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return udp, tcp
