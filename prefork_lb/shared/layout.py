"""The format of the shared segment: what lies in which cell. `shared.offsets` says where each part begins.

Everything is a signed 64-bit integer at a multiple of eight bytes, except the lock and the texts. An aligned 64-bit store
is one instruction on the machines we run on, so a process that is killed leaves the old value or the new one, and a
reader that takes no lock sees one of the two.

    header          the cells named H_ below, then the lock
    events          a ring of the last ones
    balancers       those that share with this one (`[cluster]`)
    split weights   those that operators have set
    server columns  one array a column, indexed by slot
    server keys     pool and address, as text
    server notes    why the last check passed or failed, as text; then as much for why the server was ejected, and for
                    why a request last got no whole answer from it
    pools           one block each: cells of its policy, of its retries, then its key; of its scaling, and why it is so, as text
    rows            one block for each worker process: pid and start time, its claims, its statistics
    configuration   two buffers for the configuration in force, compressed; a header cell says which one is current
    own lines       for each row the requests that wait for one server; only if a pool asked for it at the start
    statistics      what clients were answered: for each row, of rows given back (twice), and what is left out; only on request
    rates           how far each key has used its rate of requests; only if a route limited one at the start
    rate uses       a ring of the last uses of rates, to be told to other balancers; only with `[cluster]` at the start, too
    keys            requests in flight by key: a hash and a total each, and for each row its own claims; only if a route
                    limited them at the start
    filters         of each filter its own integers, and counts; only if there was one at the start
    sessions        the table of learned sessions; only if a pool learned at the start

Processes of different versions meet in /dev/shm: an upgrade starts the new version beside the old one. So three parts of the
header never move: the mark, the version and the masters. A process that finds a segment of another version reads only these
three, to see whether an instance still uses the segment.
"""
from __future__ import annotations

MAGIC = 0x3142_4C4B_5246_5250
VERSION = 22
CELL = 8
LINE_CELLS = 8  # a line of the processor's cache. What a worker writes without the lock shares none with another worker's

# Header cells.
H_MAGIC = 0  # the mark, written last: a segment without it is incomplete. Never moves
H_VERSION = 1  # never moves
H_ROWS = 2
H_SERVERS = 3
H_POOLS = 4
H_GENERATION = 5
H_CREATED = 6  # wall clock, seconds since the epoch
H_RECLAIMED = 7  # claims given back for dead workers
H_REPAIRS = 8  # times the lock's owner died inside it
H_JOINS = 9  # rows taken so far
H_CHANGES = 10  # changes so far that affect which servers may be picked, or their weights
H_CONTROLLER = 11  # the controller's pid, and its start time in the next cell
H_CONFIGURATION = 13  # which configuration is in force, and which buffer holds it: see `desired`. 0: none yet
H_RESTORED = 14  # 1: a worker has read the state file
H_BEAT = 15  # the controller's sign of life: milliseconds of the monotonic clock at its last look; 0: it has not looked yet
# Pairs (pid, start time) of the instance's gunicorn masters; during an upgrade there are two. These cells never move.
H_MASTERS = 16
MASTERS = 8
H_CONTROLLER_MASTER = 32  # the pid of the master whose workers started the controller
H_STARTED = 33  # when a worker last started a controller, in milliseconds of the monotonic clock
H_STARTS = 34  # controllers started since a controller last began its work
H_SWEPT = 35  # when a process last looked for ended workers, in milliseconds of the monotonic clock
H_DIED = 36  # workers whose rows were given back: those that died, and in the next cell those that ended of their own
H_ENDED = 37
H_EVENTS = 38  # the number of the last event, which counts from 1; written last of an event
H_MEMBERS = 39  # times so far that a server joined or left a pool at run time (`shared.members`)
H_READ = 53  # when the newest master read its configuration, in nanoseconds of the monotonic clock; 0: masters read none
H_CONFIGURATION_BYTES = 40  # of each of the two buffers
H_ROW_WANTED = 42  # when a new worker last found no row, in milliseconds of the monotonic clock
H_REMOVED = 41  # 1: the file's removal is accounted for: the instance has ended, or the removal has been logged
H_OWN_LINES = 43  # 1: there is room for the lines of single servers
H_ANSWER_TIMES = 45  # 1: there is room for requests whose answer is awaited
H_SESSIONS = 44  # sessions that the table of learned ones has room for
H_STATISTICS = 46  # 1: there is room for statistics
H_RATES = 58  # keys of limits of a rate that there is room for
H_KEYS = 59  # keys with requests in flight that there is room for
H_FILTERS = 60  # filters that there is room for
H_RATE_USES = 62  # entries of the ring of uses of rates; 0: there is none
H_RATES_USED = 63  # uses so far; written last of one
H_SPLITS = 61  # times so far that weights of splits were set (`shared.split_weights`)
H_FOLDS = 47  # rows whose statistics were added to the past: see `statistics`
H_SECRET = 48  # four cells of random bytes, made with the segment: what signs cookies, and keys hashes, of this instance
SECRET_BYTES = 32
H_CLUSTER = 54  # the pid of the process that shares with other balancers, and its start time in the next cell
H_TOGETHER = 56  # when it last shared, in milliseconds of the monotonic clock; 0: this balancer goes on by itself
H_ROUND_US = 57  # microseconds that it took
H_SECRET_TOLD = 52  # 1: the log tells that a restart forgets the sessions that this secret signs
H_LOCK = 64  # eight cells for a pthread_mutex_t: 40 bytes on x86-64, 48 on aarch64
HEADER_CELLS = 128

# The ring of events (`shared.events`): an event with the number N is entry N % EVENTS.
EVENTS, EVENT_CELLS = 256, 72
# An entry has its number, the wall clock in milliseconds, length and checksum of its text, and the text.
V_NUMBER, V_AT, V_CHECK, V_TEXT = range(4)
EVENT_TEXT_BYTES = (EVENT_CELLS - V_TEXT) * CELL
BALANCERS_START = HEADER_CELLS + EVENTS * EVENT_CELLS

# The balancers that share with one another (`shared.balancers`). An entry has these cells, and then the balancer's name.
BALANCERS, BALANCER_CELLS = 64, 16
B_KIND = 0  # 0: no entry; 1: this balancer; 2: another one. Written last
B_HEARD = 1  # when a report of it came that was a new one, in milliseconds of the monotonic clock
B_SINCE = 2  # when it was first heard of, likewise
B_IN_FLIGHT, B_ROUND_US = 3, 4  # as it reports
B_CHECKS = 5  # 1: its checks hold for all
B_NAME = 6
BALANCER_NAME_BYTES = (BALANCER_CELLS - B_NAME) * CELL

# Weights of splits that operators have set (`shared.split_weights`). An entry has these cells; the pool's name is the last.
SPLIT_WEIGHTS, SPLIT_WEIGHT_CELLS = 128, 10
W_ROUTE = 0  # 0: no entry. Written last
W_WEIGHT, W_POOL = 1, 2
SPLIT_POOL_BYTES = (SPLIT_WEIGHT_CELLS - W_POOL) * CELL
SPLIT_WEIGHTS_START = BALANCERS_START + BALANCERS * BALANCER_CELLS
TABLE_START = SPLIT_WEIGHTS_START + SPLIT_WEIGHTS * SPLIT_WEIGHT_CELLS  # the first cell of the server columns

# Server columns.
C_TOTAL = 0  # in flight, over all rows
C_USED = 1  # 1: the slot has a key
C_SEEN = 2  # the generation that last named this server
C_WEIGHT = 3
C_MAX_CONNECTIONS = 4  # 0: no limit
C_BACKUP = 5
C_PAST_REQUESTS = 6  # statistics of rows that were given back
C_PAST_FAILURES = 7
C_POLICY = 8  # the first of the policy's columns
C_PENALTY = 11  # load beside what is in flight: requests that failed a short while ago, over all rows, and C_ELSEWHERE
C_ADMIN = 12  # states.Admin
C_WEIGHT_SET = 13  # the weight that a command has set; 0: the configuration's weight applies
C_CHECK = 14  # transitions.Check
C_CHECKED = 15  # when the last check ended. Here and below: milliseconds of the monotonic clock; 0: never
C_RISEN = 16  # when the server came up, came back or was added: slow start begins at this instant
C_STREAK = 17  # failures in a row
C_EJECTED_UNTIL = 18
C_EJECTIONS = 19  # in a row
C_RETURNED = 20  # when the server last passed a trial
C_TRIAL = 21  # on trial: the row of the worker that sent the trial, plus one
C_WINDOW = 22  # when the window in which failures are counted began
C_WINDOW_FAILURES = 23
C_WINDOW_REQUESTS = 24  # requests before the window
C_EJECTION = 25  # transitions.Ejection
C_RISEN_CHANGE = 26  # H_CHANGES when the server last rose: outcomes of requests sent before are ignored
C_TRIAL_UNTIL = 27  # on trial: until when the trial's worker is believed to run; the worker renews this
C_DRAINED = 28  # when it was drained
C_SESSIONS_WINDOW = 29  # drained: when the window began in which requests of its sessions are counted
C_SESSIONS = 30  # requests in this window, and in the one before
C_LAST_SESSIONS = 31
C_OWN_TICKET = 32  # the number of the last request that began to wait for this server alone, as its session's
C_OWN_WAITING = 33  # requests that wait for it, over all rows
C_SESSION_AT = 34  # drained: when the last request of a session came
# How a server answers, for policies that go by it (`balance.answer_times`): its level, when it was last heard of and picked, and
# when it was quick again. Microseconds of the monotonic clock.
C_LEVEL, C_HEARD, C_PICKED, C_BACK = range(35, 39)
C_UNANSWERED = 39  # requests of such a pool whose response's head has not come, over all rows
C_CHECKS_PASSED, C_CHECKS_FAILED = 40, 41  # checks so far
C_TIMES_EJECTED = 42  # so far; C_EJECTIONS counts those in a row
C_STANDING = 43  # table.Standing
C_MOVED = 44  # H_MEMBERS when the server last joined or left at run time; 0: it has not
C_LIMIT_SET = 45  # the limit that a command has set, plus one; 0: the configuration's limit applies
C_SOURCE = 46  # table.Source: what has added the server
C_LEAVING = 47  # its source has let it go: the administrative state that it had before, plus one. 0: it is wanted
C_ELSEWHERE = 48  # load by what other balancers have in flight on it (`shared.elsewhere`)
C_SLOTS = 49  # of its limit over all balancers the part that this one may use, plus one; 0: all of it
C_SLOTS_ALONE = 50  # the same, once this balancer goes on by itself
C_CHECKED_ELSEWHERE = 51  # until when another balancer checks it for this one
C_FAILED = 52  # when a request last got no whole answer from it, in milliseconds since the epoch; 0: none has
SERVER_COLUMNS = 53
STATE_COLUMNS = (C_ADMIN, C_WEIGHT_SET, C_LIMIT_SET, C_CHECK, C_CHECKED, C_RISEN, C_STREAK, C_EJECTED_UNTIL, C_EJECTIONS,
                 C_RETURNED, C_TRIAL, C_WINDOW, C_WINDOW_FAILURES, C_WINDOW_REQUESTS, C_EJECTION, C_RISEN_CHANGE,
                 C_TRIAL_UNTIL, C_DRAINED, C_SESSIONS_WINDOW, C_SESSIONS, C_LAST_SESSIONS, C_SESSION_AT, C_LEAVING,
                 C_FAILED)
"""What is known of a server's state, by operators, checks and requests."""
SUMS = (C_TOTAL, C_PENALTY, C_UNANSWERED, C_OWN_WAITING)
"""Columns that count over all rows what is under way on a server."""
POLICY_COLUMNS = (C_POLICY, C_POLICY + 1, C_POLICY + 2, C_LEVEL, C_HEARD, C_PICKED, C_BACK)
"""What a policy remembers of each server; the column of unanswered requests follows them in what a policy sees."""

# Cells at the head of a pool's block; its key follows.
POLICY_CELLS = 8
P_USED = POLICY_CELLS
P_WINDOW = 9  # when the window in which retries are counted began; the next four cells are the counts
P_RETRIES = 10
P_REQUESTS = 11  # requests before the window
P_LAST_RETRIES = 12  # in the window before
P_LAST_REQUESTS = 13
P_REFUSED = 14  # requests refused by a limit of the pool
P_TICKET = 15  # the number of the last request that began to wait
P_WAITING = 16  # requests that wait, over all rows
P_LIMIT = 17  # breaker.in_flight; 0: no limit. This cell and the next two copy the newest configuration, for tools
P_QUEUE_SIZE = 18
P_RETRY_LIMIT = 19
P_PANIC = 20  # 1: too few servers are up by their checks, and all are used
P_RETRIED, P_HEDGED = 21, 22  # further attempts so far: after a failure, and beside an attempt that took long
P_QUEUED, P_QUEUED_US = 23, 24  # requests that have waited in the queue, and for how long in all, in microseconds
P_REFUSED_AT = 25  # when a limit last refused a request, in milliseconds of the monotonic clock; 0: never
P_FIRST_CHECK = 26  # the transitions.Check in which a server begins
P_NEEDS_PUBLIC = 27  # 1: servers need a public address, which only a configuration can give
P_MAY_BE_EMPTY = 28  # 1: its servers come and go, so it may have none for a while
P_SEEN = 29  # the generation that last named this pool
POOL_HEAD_CELLS = POLICY_CELLS + 22

# Cells of a pool's scaling, behind its key; a note follows, which says why so many servers are wanted.
F_MODE = 0  # scales.Mode
F_SET = 1  # the servers that an operator wants, plus one; 0: the rule decides
F_MOST = 2  # the configuration's `max`, for operators
F_WANTED, F_RUNNING, F_STARTING, F_ENDING = range(3, 7)  # servers
F_ROLL_BEFORE = 7  # servers that were started before this instant are to be replaced: monotonic milliseconds; 0: none
F_ROLL_SURGE = 8  # by so many at a time
SCALING_CELLS = 10

# Cells of a pool's discovery, behind those of its scaling; a note follows, which says why it fails.
D_STATE = 0  # discovered.State
D_GOOD_AT = 1  # when there was a good list last, in milliseconds since the epoch; 0: there was none
D_SERVERS = 2  # in that list
DISCOVERY_CELLS = 4

# Cells at the head of a worker's row; then three arrays indexed by slot.
R_PID = 0  # 0: the row is free
R_START = 1  # the process' start time in clock ticks since boot: pids come again, this pair does not
R_GENERATION = 2  # the generation this worker's view was built from
R_CLIENTS = 3  # client connections that this worker has, plus one; 0: it does not accept, or does not tell
R_LAG = 4  # how far its loop lags: microseconds, plus one; 0: it does not measure this
R_ENDS = 5  # 1: it ends in good order
R_LINGERS = 6  # since when its worker lingers (wall clock, seconds): replaced, it serves what it has. 0: it does not
R_LINGERING = 7  # client connections that a lingering worker has
R_MEMBERS = 8  # the H_MEMBERS that all pools of this worker have taken into account
R_COMPILED = 9  # 1: its worker has the compiled modules
ROW_HEAD_CELLS = 10
# By slot.
A_CLAIMS, A_REQUESTS, A_FAILURES, A_PENALTIES, A_UNANSWERED = range(5)
# By pool: retries under way, requests that wait, and of those the one that came first: its ticket, and its bell with the
# instant until which it is believed to answer (see `shared.waiting_line`).
A_RETRIES, A_WAITING, A_TICKET, A_BELL = range(5, 9)
SERVER_ARRAYS, ROW_ARRAYS = 5, 9

# Lines of requests that wait for one server, that of their session. By row and slot, as those of pools: how many wait, and the
# ticket and bell of the first.
O_WAITING, O_TICKET, O_BELL = range(3)
OWN_ARRAYS = 3

# Statistics. A block has these cells at its head; then some for each server, by slot; then some for each pool.
# Requests that reached no pool, by the class of their answer (1xx to 5xx) or, at last, left by their clients.
N_CODES = 0
N_SHED = 6  # requests and connections refused since the worker had too much to do
STATISTICS_HEAD_CELLS = 8
# Of a server: its answers to clients, by class (1xx to 5xx); bytes of bodies from and to these clients; microseconds from the
# request's head to the answer's end. Eight cells are a line of the processor's cache.
S_CODES, S_RECEIVED, S_SENT, S_US = 0, 5, 6, 7
STATISTICS_SERVER_CELLS = 8
# Of a pool: requests that this proxy answered itself, by `statistics.OWN_CODES`; all requests by the time that they took, by
# `statistics.BOUNDS_S`; this time in all, in microseconds.
S_OWN, S_BUCKETS, S_POOL_US = 0, 6, 22
STATISTICS_POOL_CELLS = 24

# The table of rates: of an entry the key and the instant up to which it has used its rate (`shared.rate_table`). A set of
# eight is two lines of the processor's cache.
RATE_CELLS, RATES_IN_SET = 2, 8
# The ring of uses (`shared.rate_uses`): of an entry the key, and the nanoseconds that the rate allows for one request.
RATE_USES, RATE_USE_CELLS = 8192, 2

# Entries of the table of keys in flight that one key may be in (`shared.key_claims`). With half of the entries in use, three
# of 10,000 keys find none that is free.
KEYS_IN_SET = 32

# Of a filter: its key (0: the block is free), when it was last entered (monotonic milliseconds), exceptions, and calls over the
# time limit. Its name follows, as a note, and its own integers.
G_KEY, G_ENTERED, G_FAILURES, G_LATE = range(4)
FILTER_HEAD_CELLS, FILTER_CELLS = 4, 1024

# The table of learned sessions: cells at its head, and cells of an entry (`shared.sessions`).
SESSION_HEAD_CELLS, SESSION_CELLS = 8, 7
# Of an entry: the hash, the server, when the session was used, its neighbours in the order of use, the next of its bucket.
E_HIGH, E_LOW, E_SERVER, E_USED, E_OLDER, E_NEWER, E_CHAIN = range(SESSION_CELLS)
T_CHANGES = 0  # odd: a change is going on
T_FRESH = 1  # entries that were ever in use
T_NEWEST = 2
T_OLDEST = 3
T_GIVEN_UP = 4  # sessions that had to go for others

# A pool's name (63 bytes), a line feed, an address (`https://`, a name of 253 bytes, a port), NUL.
KEY_BYTES = 336
NOTE_BYTES = 128
FILTER_BLOCK_CELLS = FILTER_HEAD_CELLS + NOTE_BYTES // CELL + FILTER_CELLS
