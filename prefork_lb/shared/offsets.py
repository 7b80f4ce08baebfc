"""Where the parts of a segment begin, by its numbers of rows, servers and pools; `shared.layout` says what is in them."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prefork_lb.shared import layout as at


def _whole_lines(cells: int) -> int:
    return -(-cells // at.LINE_CELLS) * at.LINE_CELLS


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets, in cells, for a number of rows, servers and pools, and a size of the configuration."""

    rows: int
    servers: int
    pools: int
    configuration_bytes: int = 16384  # compressed; a multiple of eight
    own_lines: int = 0  # 1: room for lines of requests that wait for one server
    sessions: int = 0  # learned ones
    answer_times: int = 1  # 1: room for requests whose answer is awaited, of pools that go by the time of that
    statistics: int = 0  # 1: room for statistics
    rates: int = 0  # keys of limits; a multiple of at.RATES_IN_SET
    keys: int = 0  # with requests in flight; a multiple of at.KEYS_IN_SET
    filters: int = 0  # that there is room for
    rate_uses: int = 0  # entries of the ring of uses of rates

    @property
    def lock_byte(self) -> int:
        return at.H_LOCK * at.CELL

    @property
    def secret_byte(self) -> int:
        return at.H_SECRET * at.CELL

    def column(self, number: int) -> slice:
        """A server column: `servers` cells."""
        start = at.TABLE_START + number * self.servers
        return slice(start, start + self.servers)

    def cell(self, column: int, slot: int) -> int:
        """The cell of a slot in a server column."""
        return at.TABLE_START + column * self.servers + slot

    def server_key_byte(self, slot: int) -> int:
        """Where the text of a slot's key begins: `KEY_BYTES` bytes, ended by NUL."""
        return (at.TABLE_START + at.SERVER_COLUMNS * self.servers) * at.CELL + slot * at.KEY_BYTES

    def server_note_byte(self, slot: int) -> int:
        """Where the note on a slot's server begins: `NOTE_BYTES` bytes, ended by NUL."""
        return self.server_key_byte(self.servers) + slot * at.NOTE_BYTES

    def server_reason_byte(self, slot: int) -> int:
        """Where the reason of its ejection begins: as long as a note."""
        return self.server_note_byte(self.servers) + slot * at.NOTE_BYTES

    def server_failure_byte(self, slot: int) -> int:
        """Where it stands why a request last got no whole answer from the slot's server: as long as a note."""
        return self.server_reason_byte(self.servers) + slot * at.NOTE_BYTES

    @property
    def _pools_start(self) -> int:
        return self.server_failure_byte(self.servers) // at.CELL

    @property
    def _pool_stride(self) -> int:
        return at.POOL_HEAD_CELLS + at.SCALING_CELLS + at.DISCOVERY_CELLS + (at.KEY_BYTES + 2 * at.NOTE_BYTES) // at.CELL

    def pool(self, number: int) -> int:
        """The first cell of a pool's block."""
        return self._pools_start + number * self._pool_stride

    def pool_key_byte(self, number: int) -> int:
        return (self.pool(number) + at.POOL_HEAD_CELLS) * at.CELL

    def pool_scaling(self, number: int) -> int:
        """The first cell of a pool's scaling."""
        return self.pool(number) + at.POOL_HEAD_CELLS + at.KEY_BYTES // at.CELL

    def pool_note_byte(self, number: int) -> int:
        """Where the note on a pool's scaling begins: `NOTE_BYTES` bytes, ended by NUL."""
        return (self.pool_scaling(number) + at.SCALING_CELLS) * at.CELL

    def pool_discovery(self, number: int) -> int:
        """The first cell of a pool's discovery."""
        return self.pool_scaling(number) + at.SCALING_CELLS + at.NOTE_BYTES // at.CELL

    def discovery_note_byte(self, number: int) -> int:
        """Where the note on a pool's discovery begins: `NOTE_BYTES` bytes, ended by NUL."""
        return (self.pool_discovery(number) + at.DISCOVERY_CELLS) * at.CELL

    @property
    def _row_stride(self) -> int:
        return _whole_lines(
            at.ROW_HEAD_CELLS + self._server_arrays * self.servers + (at.ROW_ARRAYS - at.SERVER_ARRAYS) * self.pools)

    @property
    def _server_arrays(self) -> int:
        """Those that there is room for; that of requests whose answer is awaited is the last one."""
        return at.SERVER_ARRAYS if self.answer_times else at.A_UNANSWERED

    def row(self, number: int) -> int:
        """The first cell of a worker's row."""
        return _whole_lines(self.pool(self.pools)) + number * self._row_stride

    def row_array(self, number: int, array: int) -> slice:
        """One of a row's arrays, `A_CLAIMS` and so on: by slot, or by pool. `A_UNANSWERED` is empty without `answer_times`."""
        start = self.row(number) + at.ROW_HEAD_CELLS + min(array, self._server_arrays) * self.servers
        if array < at.SERVER_ARRAYS:
            return slice(start, start + (self.servers if array < self._server_arrays else 0))
        start += (array - at.SERVER_ARRAYS) * self.pools
        return slice(start, start + self.pools)

    def row_arrays(self, numbers: Iterable[int], array: int) -> list[slice]:
        """This array of several rows."""
        first, stride = self.row_array(0, array), self._row_stride
        return [slice(first.start + number * stride, first.stop + number * stride) for number in numbers]

    def configuration_byte(self, buffer: int) -> int:
        """Where one of the two buffers of the configuration begins, 0 or 1."""
        return self.row(self.rows) * at.CELL + buffer * self.configuration_bytes

    def own_line_array(self, row: int, array: int) -> slice:
        """One of the arrays of a row, `O_WAITING` and so on, by slot. There is none without `own_lines`."""
        start: int = self.configuration_byte(2) // at.CELL + (row * at.OWN_ARRAYS + array) * self.servers
        return slice(start, start + self.servers)

    def statistics_block(self, number: int) -> slice:
        """The statistics of a row; behind those of all rows, three more blocks. There is none without `statistics`."""
        start = _whole_lines(int(self.own_line_array(self.rows if self.own_lines else 0, 0).start))
        stride = self.statistics_pool(self.pools) if self.statistics else 0
        return slice(start + number * stride, start + (number + 1) * stride)

    def statistics_server(self, slot: int) -> int:
        """Where a server's cells begin in a block of statistics."""
        return at.STATISTICS_HEAD_CELLS + slot * at.STATISTICS_SERVER_CELLS

    def statistics_pool(self, number: int) -> int:
        """Where a pool's cells begin in a block of statistics."""
        return self.statistics_server(self.servers) + number * at.STATISTICS_POOL_CELLS

    @property
    def rates_start(self) -> int:
        """The first cell of the table of rates."""
        return int(self.statistics_block(self.rows + 3).start)

    @property
    def rate_uses_start(self) -> int:
        """The first cell of the ring of uses of rates."""
        return self.rates_start + self.rates * at.RATE_CELLS

    def _key_cells(self, number: int) -> slice:
        start = self.rate_uses_start + self.rate_uses * at.RATE_USE_CELLS + number * self.keys
        return slice(start, start + self.keys)

    @property
    def key_hashes(self) -> slice:
        """The keys with requests in flight; there is none without `keys`, as of the next four."""
        return self._key_cells(0)

    @property
    def key_totals(self) -> slice:
        """What each of them has in flight, over all rows."""
        return self._key_cells(1)

    @property
    def key_limits(self) -> slice:
        """How many the newest request of each allowed, let in or not; 0: there was none."""
        return self._key_cells(2)

    @property
    def key_shares(self) -> slice:
        """One and the number that this balancer may have in flight of each; 0: as many as its limit."""
        return self._key_cells(3)

    def row_keys(self, row: int) -> slice:
        """What a worker has in flight of each of them."""
        return self._key_cells(4 + row)

    @property
    def sessions_start(self) -> int:
        """The first cell of the table of sessions."""
        return self.filter_block(self.filters)

    def filter_block(self, number: int) -> int:
        """The first cell of a filter's block."""
        return int(self.row_keys(self.rows).start) + number * at.FILTER_BLOCK_CELLS

    @property
    def session_buckets(self) -> int:
        """A power of two, and at least as many as there are sessions; 0 without."""
        buckets = 1
        while buckets < self.sessions:
            buckets *= 2
        return buckets if self.sessions else 0

    @property
    def cells(self) -> int:
        table = at.SESSION_HEAD_CELLS + self.session_buckets + at.SESSION_CELLS * self.sessions if self.sessions else 0
        return int(self.sessions_start + table)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.cells * at.CELL
