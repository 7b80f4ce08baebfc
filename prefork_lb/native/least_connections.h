/* The pick of least connections, and the claim (balance/least_connections.py, balance/rotation.py): claims on the servers of one
 * pool. Included by claims.c, whose Claims it needs, behind answers.h.
 */

/* MOST_SERVERS is an attribute of the module. All other numbers of the Python code come as arguments: none is written twice. */
enum { MOST_SERVERS = 1024, MOST_ROUNDS = 1000 };
static const int64_t MOST_WEIGHT = 1 << 30, MOST_UNIT = 1000000000;

typedef struct {
    int64_t slot, weight, limit;
} Server;

typedef struct {
    PyObject_HEAD
    Claims *claims;
    Answers *answers; /* NULL: the policy does not go by the times of answers */
    Py_buffer pool, last, finish;
    Server *servers;
    Py_ssize_t count;
    int64_t total_weight;
    int64_t unit;        /* balance/rotation.py: UNIT */
    int64_t memory;      /* UNIT * MEMORY_ROUNDS */
    Py_ssize_t changes_cell; /* shared/layout.py: H_CHANGES, the count of changes of the servers' states */
    int64_t seen;        /* that count when these servers were chosen */
    Py_ssize_t idle_cell; /* balance/least_connections.py: the cell of the pool that counts idle picks */
    int equal;           /* all weights are the same */
} Picker;

static int take_servers(Picker *self, PyObject *servers, Py_ssize_t slots) {
    self->count = PyTuple_GET_SIZE(servers);
    if (self->count < 1 || self->count > MOST_SERVERS) {
        PyErr_Format(PyExc_ValueError, "%zd servers; expected 1 to %d", self->count, MOST_SERVERS);
        return -1;
    }
    self->servers = PyMem_Calloc((size_t)self->count, sizeof(Server));
    if (!self->servers) {
        PyErr_NoMemory();
        return -1;
    }
    self->equal = 1;
    for (Py_ssize_t i = 0; i < self->count; i++) {
        PyObject *item = PyTuple_GET_ITEM(servers, i);
        long long slot, weight, limit;
        if (!PyTuple_Check(item)) {
            PyErr_SetString(PyExc_TypeError, "a server is a tuple (slot, weight, limit)");
            return -1;
        }
        if (!PyArg_ParseTuple(item, "LLL", &slot, &weight, &limit)) return -1;
        if (slot < 0 || slot >= slots || weight < 1 || weight > MOST_WEIGHT) {
            PyErr_Format(PyExc_ValueError, "slot %lld, weight %lld", slot, weight);
            return -1;
        }
        self->servers[i] = (Server){.slot = slot, .weight = weight, .limit = limit};
        self->total_weight += weight;
        self->equal &= weight == self->servers[0].weight;
    }
    return 0;
}

static int picker_fill(Picker *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"claims", "servers", "pool", "last", "finish", "unit", "memory_rounds", "idle_cell",
                            "changes_cell", "seen", "answers", NULL};
    PyObject *answers = Py_None;
    PyObject *claims, *servers, *pool, *last, *finish;
    long long unit, rounds, seen;
    Py_ssize_t idle_cell, changes_cell;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!OOOLLnnL|O", names, claims_type, &claims, &PyTuple_Type, &servers, &pool, &last,
                                     &finish, &unit, &rounds, &idle_cell, &changes_cell, &seen, &answers))
        return -1;
    if (answers != Py_None && !PyObject_TypeCheck(answers, answers_type)) {
        PyErr_SetString(PyExc_TypeError, "answers are an Answers, or None");
        return -1;
    }
    if (unit < 1 || unit > MOST_UNIT || rounds < 1 || rounds > MOST_ROUNDS || idle_cell < 2 || idle_cell >= POLICY_CELLS) {
        PyErr_SetString(PyExc_ValueError, "unit, memory_rounds or idle_cell is out of its range");
        return -1;
    }
    self->claims = (Claims *)Py_NewRef(claims);
    if (answers != Py_None) {
        self->answers = (Answers *)Py_NewRef(answers);
        if (self->answers->claims != self->claims) {
            PyErr_SetString(PyExc_ValueError, "answers of other claims");
            return -1;
        }
    }
    self->unit = unit, self->memory = unit * rounds, self->idle_cell = idle_cell;
    self->changes_cell = changes_cell, self->seen = seen;
    if (changes_cell < 0 || changes_cell >= self->claims->memory.len / (Py_ssize_t)sizeof(int64_t)) {
        PyErr_Format(PyExc_ValueError, "no cell %zd", changes_cell);
        return -1;
    }
    Py_ssize_t slots = self->claims->totals.len / (Py_ssize_t)sizeof(int64_t);
    if (take_cells(pool, &self->pool, idle_cell + 1) < 0 || take_cells(last, &self->last, slots) < 0 ||
        take_cells(finish, &self->finish, slots) < 0)
        return -1;
    return take_servers(self, servers, slots);
}

static PyObject *picker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Picker *self = (Picker *)type->tp_alloc(type, 0);
    if (self && picker_fill(self, args, kwargs) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* No tp_clear: every cycle leads through `claims`, which has a tp_clear. So `claim` can rely on self->claims. */
static int picker_traverse(Picker *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->claims);
    Py_VISIT(self->answers);
    return 0;
}

static void picker_dealloc(Picker *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyBuffer_Release(&self->pool);
    PyBuffer_Release(&self->last);
    PyBuffer_Release(&self->finish);
    PyMem_Free(self->servers);
    Py_XDECREF(self->answers);
    Py_XDECREF(self->claims);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The tied server whose turn it is (balance/rotation.py, Rotation.pick). */
static Py_ssize_t turn(Picker *self, const int16_t *tied, Py_ssize_t count) {
    cell *last = cells_of(&self->last), *finish = cells_of(&self->finish);
    Py_ssize_t best = tied[0];
    for (Py_ssize_t i = 1; i < count; i++) {
        int64_t slot = self->servers[tied[i]].slot, than = self->servers[best].slot;
        if (self->equal ? last[slot] < last[than]
                        : finish[slot] < finish[than] || (finish[slot] == finish[than] && last[slot] < last[than]))
            best = tied[i];
    }
    return best;
}

/* Record the pick (Rotation.taken). */
static void taken(Picker *self, const Server *server) {
    cell *pool = cells_of(&self->pool), *finish = cells_of(&self->finish);
    cells_of(&self->last)[server->slot] = pool[0] + 1;
    pool[0] += 1;
    if (self->equal) return;
    int64_t step = self->unit / server->weight, virtual = pool[1];
    int64_t start = virtual - step > finish[server->slot] ? virtual - step : finish[server->slot];
    finish[server->slot] = start + step;
    int64_t next = virtual + self->unit / self->total_weight, least = start - self->memory;
    pool[1] = next > least ? next : least;
}

/* The least loaded server (balance/least_connections.py); -1 when the Python code must decide. */
static Py_ssize_t pick(Picker *self) {
    cell *totals = cells_of(&self->claims->totals), *penalties = cells_of(&self->claims->penalties), *pool = cells_of(&self->pool);
    int16_t tied[MOST_SERVERS];
    tied[0] = 0;
    Py_ssize_t ties = 0;
    int64_t best_load = 1, best_weight = 0, in_flight = 0; /* infinite */
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Server *server = &self->servers[i];
        int64_t count = totals[server->slot];
        if (count >= server->limit) return -1; /* a full server is not a candidate: Python filters */
        count += penalties[server->slot];
        int64_t load = 2 * count + 1;
        in_flight += count;
        int64_t difference = load * best_weight - best_load * server->weight;
        if (difference < 0) {
            best_load = load, best_weight = server->weight;
            tied[0] = (int16_t)i, ties = 1;
        } else if (difference == 0) {
            tied[ties++] = (int16_t)i;
        }
    }
    if (in_flight == 0 && !self->equal) return -1; /* the smooth sequence */
    if (in_flight && pool[self->idle_cell]) pool[self->idle_cell] = 0;
    return turn(self, tied, ties);
}

/* The lock must be held. */
static void count_claim(Picker *self, const Server *server, int64_t now) {
    Claims *claims = self->claims;
    taken(self, server);
    cells_of(&claims->claims)[server->slot] += 1; /* the row before the total, as in the ledger */
    cells_of(&claims->totals)[server->slot] += 1;
    cells_of(&claims->requests)[server->slot] += 1;
    if (self->answers) begin_wait(self->answers, server->slot, now);
}

static int is_any_slow(Picker *self, int64_t now) {
    for (Py_ssize_t i = 0; i < self->count; i++)
        if (is_slow(self->answers, self->servers[i].slot, now)) return 1;
    return 0;
}

/* The instant, the last of the arguments, counts only with Answers. -1 with an exception. */
static int64_t instant(Picker *self, PyObject *const *args, Py_ssize_t count, Py_ssize_t place) {
    if (count != place + 1) {
        PyErr_SetString(PyExc_TypeError, "claim(now), claim_at(index, now)");
        return -1;
    }
    return self->answers ? PyLong_AsLongLong(args[place]) : 0;
}

PyDoc_STRVAR(claim_doc,
"claim(now) -> int\n\n"
"Pick a server and count the claim: its index. -1, and nothing was done, when the lock was not to be had at once, a server's state\n"
"has changed since these servers were chosen, a server is full or slow, or nothing is in flight on servers of unequal weights.\n"
"`now`: microseconds of the monotonic clock; it counts only with answers.");

static PyObject *picker_claim(Picker *self, PyObject *const *args, Py_ssize_t count) {
    int64_t now = instant(self, args, count, 0);
    if (now == -1 && PyErr_Occurred()) return NULL;
    Claims *claims = self->claims;
    int entered = enter(claims);
    if (entered < 0) return NULL;
    if (!entered) return PyLong_FromLong(-1);
    /* Compared under the lock: after a command has drained a server and released the lock, no worker claims by the old states. */
    int is_current = cells_of(&claims->memory)[self->changes_cell] == self->seen;
    Py_ssize_t index = is_current && !(self->answers && is_any_slow(self, now)) ? pick(self) : -1;
    if (index >= 0) count_claim(self, &self->servers[index], now);
    if (leave(claims) < 0) return NULL;
    return PyLong_FromSsize_t(index);
}

PyDoc_STRVAR(claim_at_doc,
"claim_at(index, now) -> bool\n\n"
"Count a claim on this server, which a session asks for: it takes the server's turn. False, and nothing was done, when the lock was\n"
"not to be had at once, a server's state has changed since these servers were chosen, or the server is full.");

static PyObject *picker_claim_at(Picker *self, PyObject *const *args, Py_ssize_t count) {
    int64_t now = instant(self, args, count, 1);
    if (now == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t index = PyLong_AsSsize_t(args[0]);
    if (index == -1 && PyErr_Occurred()) return NULL;
    if (index < 0 || index >= self->count) {
        PyErr_Format(PyExc_IndexError, "no server %zd", index);
        return NULL;
    }
    Claims *claims = self->claims;
    int entered = enter(claims);
    if (entered < 0) return NULL;
    if (!entered) Py_RETURN_FALSE;
    const Server *server = &self->servers[index];
    int can = cells_of(&claims->memory)[self->changes_cell] == self->seen
              && cells_of(&claims->totals)[server->slot] < server->limit;
    if (can) count_claim(self, server, now);
    if (leave(claims) < 0) return NULL;
    return PyBool_FromLong(can);
}

static PyMethodDef picker_methods[] = {
    {"claim", (PyCFunction)(void (*)(void))picker_claim, METH_FASTCALL, claim_doc},
    {"claim_at", (PyCFunction)(void (*)(void))picker_claim_at, METH_FASTCALL, claim_at_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot picker_slots[] = {
    {Py_tp_doc, "LeastConnections(claims, servers, pool, last, finish, unit, memory_rounds, idle_cell, changes_cell, seen, answers=None)\n\n"
                "Claims by least connections. `servers` are tuples (slot, weight, limit); the buffers are the policy's memory.\n"
                "They were chosen when the cell `changes_cell` of the segment was `seen`."},
    {Py_tp_new, picker_new},
    {Py_tp_traverse, picker_traverse},
    {Py_tp_dealloc, picker_dealloc},
    {Py_tp_methods, picker_methods},
    {0, NULL},
};
static PyType_Spec picker_spec = {
    "prefork_lb.native.claims.LeastConnections", sizeof(Picker), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, picker_slots,
};
