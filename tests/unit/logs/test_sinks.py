"""Where lines go: files, pipes, sockets; what is full, blocked or gone."""
from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from prefork_lb.log_summary import LogSummary
from prefork_lb.logs.lines import JSONLines
from prefork_lb.logs.sinks import DatagramSink, Sink, StreamSink, Written, make_sink
from prefork_lb.logs.writer import AccessLog
from tests.unit.logs.records import record

LINES = [b"line %d\n" % number for number in range(3)]


def test_lines_go_to_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    sink = make_sink(str(path))
    assert sink.write(LINES) == Written(3)
    sink.close()
    assert path.read_bytes() == b"before\n" + b"".join(LINES)


def test_a_new_file_is_for_its_user_and_its_group(tmp_path: Path) -> None:
    make_sink(str(tmp_path / "access.log")).write(LINES)
    assert (tmp_path / "access.log").stat().st_mode & 0o777 & ~0o640 == 0


def test_a_file_that_was_moved_away_gets_lines_until_it_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    sink = make_sink(str(path))
    sink.write(LINES[:1])
    path.rename(tmp_path / "old")
    sink.write(LINES[1:2])
    sink.reopen()
    sink.write(LINES[2:])
    assert (tmp_path / "old").read_bytes() == LINES[0] + LINES[1]
    assert path.read_bytes() == LINES[2]


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    sink = make_sink(str(tmp_path / "folder" / "access.log"))
    done, error = sink.write(LINES)
    assert done == 0 and error is not None and error.errno == errno.ENOENT
    (tmp_path / "folder").mkdir()
    assert sink.write(LINES) == Written(3)


def test_a_write_that_was_cut_short_counts_whole_lines_and_the_next_one_begins_a_line(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = make_sink(str(tmp_path / "access.log"))
    sink.write(LINES[:1])
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:-3]))
    done, error = sink.write(LINES)
    assert done == 2 and error is not None and error.errno == errno.ENOSPC
    monkeypatch.undo()
    assert sink.write(LINES) == Written(3)
    assert (tmp_path / "access.log").read_bytes().split(b"\n") == [
        b"line 0", b"line 0", b"line 1", b"line", b"line 0", b"line 1", b"line 2", b""]


@pytest.fixture
def pipe() -> Iterator[tuple[int, StreamSink]]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = StreamSink(lambda: os.dup(writer))
    yield reader, sink
    sink.close()
    os.close(reader)
    os.close(writer)


def read_all(descriptor: int) -> bytes:
    data = b""
    while select.select([descriptor], [], [], 0)[0] and (piece := os.read(descriptor, 65536)):
        data += piece
    return data


def test_a_pipe_takes_lines_in_whole_pieces_until_it_is_full(pipe: tuple[int, StreamSink]) -> None:
    reader, sink = pipe
    lines = [b"%07d%b\n" % (number, b"x" * 900) for number in range(200)]
    done, error = sink.write(lines)
    assert 0 < done < 200 and error is None
    assert sink.write(lines[done:]) == Written(0)
    data = read_all(reader)
    assert data == b"".join(lines[:done])
    while done < 200:
        done += sink.write(lines[done:]).lines
        data += read_all(reader)
    assert data == b"".join(lines)


def test_a_line_longer_than_a_pipe_takes_goes_on_where_it_stopped(pipe: tuple[int, StreamSink]) -> None:
    reader, sink = pipe
    line = b"y" * 200_000 + b"\n"
    assert sink.write([line, b"next\n"]).lines == 1
    data = b""
    left: Sequence[bytes] = [b"next\n"]
    while left:
        data += read_all(reader)
        left = left[sink.write(left).lines:]
    assert data + read_all(reader) == line + b"next\n"


def test_a_stream_socket_that_waits_is_not_waited_for() -> None:
    mine, theirs = socket.socketpair()
    with mine, theirs:
        sink = StreamSink(lambda: os.dup(mine.fileno()))
        lines = [b"z" * 1000 + b"\n"] * 2000
        done = sink.write(lines).lines
        assert 0 < done < 2000 and mine.getblocking()
        sink.close()


def test_a_pipe_without_a_reader_is_an_error_and_opened_anew() -> None:
    opened: list[int] = []

    def open_pipe() -> int:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        if not opened:
            os.close(reader)
        opened.append(reader)
        return writer

    sink = StreamSink(open_pipe)
    done, error = sink.write(LINES)
    assert done == 0 and error is not None and error.errno == errno.EPIPE
    assert sink.write(LINES) == Written(3)
    assert os.read(opened[1], 100) == b"".join(LINES)
    sink.close()
    os.close(opened[1])


def test_each_line_is_a_message_of_syslog(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        daemon.settimeout(10)
        sink = make_sink(f"syslog:{tmp_path / 'log'}")
        assert sink.write(LINES) == Written(3)
        assert daemon.recv(1000) == b"<134>prefork-lb[%d]: line 0" % os.getpid()
        sink.close()


def test_syslog_over_the_network_is_rfc_5424() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(10)
        sink = make_sink(f"syslog:127.0.0.1:{daemon.getsockname()[1]}")
        assert sink.write(LINES[:1]) == Written(1)
        parts = daemon.recv(1000).split(b" ", 7)
        assert parts[0] == b"<134>1" and parts[3:] == [b"prefork-lb", b"%d" % os.getpid(), b"-", b"-", b"line 0"]
        sink.close()


def journal(message: Callable[[bytes], bytes] = bytes) -> tuple[socket.socket, DatagramSink]:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    mine.setblocking(False)
    return theirs, DatagramSink(lambda: mine, message)


def test_a_daemon_that_reads_nothing_is_not_waited_for() -> None:
    daemon, sink = journal()
    lines = [b"line\n"] * 100_000
    done, error = sink.write(lines)
    assert 0 < done < 100_000 and error is None
    daemon.close()
    done, error = sink.write(lines[:1])
    assert done == 0 and error is not None
    sink.close()


def test_a_line_too_long_for_a_message_is_left_out() -> None:
    daemon, sink = journal()
    assert sink.write([b"one\n", b"x" * 10_000_000 + b"\n", b"two\n"]) == Written(3)
    assert (daemon.recv(10), daemon.recv(10)) == (b"one", b"two")
    daemon.close()
    sink.close()


class Notebook:
    """A sink that takes as many lines as it is told to."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.most = 1_000_000
        self.error: OSError | None = None
        self.opened = 1
        self.closed = 0

    def write(self, lines: Sequence[bytes]) -> Written:
        taken = lines[:self.most]
        self.lines += taken
        return Written(len(taken), self.error if len(taken) < len(lines) else None)

    def reopen(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1


def new_log(sample: float = 1.0) -> tuple[AccessLog, Notebook]:
    sink = Notebook()
    typed: Sink = sink
    return AccessLog("access.log", JSONLines(), typed, sample), sink


def test_lines_wait_for_the_next_look_or_for_a_batch() -> None:
    log, sink = new_log()
    log.write(record())
    assert sink.lines == []
    log.flush()
    assert len(sink.lines) == 1
    for _ in range(128):
        log.write(record())
    assert len(sink.lines) == 129


def test_lines_that_a_reader_does_not_take_wait_in_their_order_and_not_without_end() -> None:
    log, sink = new_log()
    sink.most = 0
    for number in range(9000):
        log.write(record(target=b"/%d" % number))
        if number % 100 == 0:
            log.flush()
    sink.most = 1_000_000
    log.flush()
    assert 8192 <= len(sink.lines) <= 8192 + 128
    assert b'"/8999"' in sink.lines[-1] and b'"/8998"' in sink.lines[-2]


def test_what_cannot_be_written_is_told_once_and_counted(
        caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefork_lb.logs.writer.summary", LogSummary(logging.getLogger("prefork_lb")))
    log, sink = new_log()
    sink.most, sink.error = 0, OSError(errno.ENOSPC, "No space left on device")
    with caplog.at_level("WARNING", "prefork_lb"):
        for _ in range(300):
            log.write(record())
        log.flush()
        sink.most = 1_000_000
        log.write(record())
        log.flush()
    told = [line.getMessage() for line in caplog.records if "access log" in line.getMessage()]
    assert told == ["access log access.log: cannot be written, lines are lost until it can: No space left on device",
                    "access log access.log: is written again; 300 lines were lost"]


def test_it_is_opened_anew_before_the_next_write() -> None:
    log, sink = new_log()
    log.write(record())
    log.reopen_soon()
    assert (sink.opened, sink.lines) == (1, [])
    log.flush()
    assert (sink.opened, len(sink.lines)) == (2, 1)
    log.reopen_soon()
    log.flush()
    assert sink.opened == 3


def test_the_rest_is_written_at_the_end() -> None:
    log, sink = new_log()
    log.write(record())
    log.close()
    assert (len(sink.lines), sink.closed) == (1, 1)


def test_a_sample_leaves_out_only_what_went_well() -> None:
    log, sink = new_log(0.0)
    log.write(record())
    log.write(record(error=OSError("defect")))
    log.flush()
    assert len(sink.lines) == 1 and b"internal error" in sink.lines[0]


def test_a_line_that_cannot_be_made_harms_no_request(caplog: pytest.LogCaptureFixture) -> None:
    log, sink = new_log()
    broken = record()
    del broken.ended_at
    log.write(broken)
    log.write(record())
    log.flush()
    assert len(sink.lines) == 1
