/* The times of answers in C (balance/answer_times.py, upstream/answering.py): included by claims.c, whose Claims it needs.
 *
 * It claims only while no server is slow: what comes of a slow one is for the Python to do.
 */

enum { EDGE = 6 }; /* balance/answer_times.py */

typedef struct {
    PyObject_HEAD
    Claims *claims;
    Py_buffer pool, level, heard, picked, back, totals, waiting; /* the columns, and what waits: over all rows, and in this one */
    Py_ssize_t pool_cell;
    int64_t weight, pool_weight, noise, failure;
} Answers;

static PyTypeObject *answers_type;

enum { ANSWERED = 0, FAILED = 1, LEFT = 2 }; /* upstream/answering.py: Ending */
static const int64_t MOST_US = (int64_t)1 << 46, MOST_LEVEL = (int64_t)46 << 16, MOST_STEP = 1 << 24;

static int64_t level_of(int64_t us) {
    uint64_t value = us < 1 ? 1 : us > MOST_US ? (uint64_t)MOST_US : (uint64_t)us;
    int power = 63 - __builtin_clzll(value);
    return ((int64_t)power << 16) + (int64_t)(value << 16 >> power) - 65536;
}

/* As // in Python: down, of a positive divisor. */
static int64_t divided(int64_t number, int64_t by) { return number / by - (number % by < 0); }

static int is_slow(Answers *self, int64_t slot, int64_t now) {
    int64_t pool = cells_of(&self->pool)[self->pool_cell];
    if (!pool) return 0;
    int64_t level = cells_of(&self->level)[slot], heard = cells_of(&self->heard)[slot];
    if (heard && cells_of(&self->totals)[slot] > 0) {
        int64_t silence = level_of(now - heard);
        if (silence > level) level = silence;
    }
    return level - pool > self->noise;
}

/* AnswerTimes.began and Ledger.await_answer: the row before the total. */
static void begin_wait(Answers *self, int64_t slot, int64_t now) {
    if (cells_of(&self->totals)[slot] <= 0) cells_of(&self->heard)[slot] = now;
    cells_of(&self->picked)[slot] = now;
    cells_of(&self->waiting)[slot] += 1;
    cells_of(&self->totals)[slot] += 1;
}

/* Ledger.end_wait: the total before the row. Then AnswerTimes.answered or .left. */
static void end_wait(Answers *self, int64_t slot, int64_t begun, int64_t now, int ending) {
    cells_of(&self->totals)[slot] -= 1;
    cells_of(&self->waiting)[slot] -= 1;
    cell *levels = cells_of(&self->level), *pools = cells_of(&self->pool) + self->pool_cell, *back = cells_of(&self->back);
    int64_t us = now - begun, sample = level_of(us), level = levels[slot], pool = *pools;
    if (ending == LEFT) {
        if (level && sample > level && begun >= back[slot]) levels[slot] = level + divided(sample - level, self->weight);
        return;
    }
    cells_of(&self->heard)[slot] = now;
    if (begun < back[slot]) return;
    if (!level) level = pool ? pool : sample;
    if (ending == FAILED) {
        int64_t slow = (level > pool ? level : pool) + self->failure;
        if (slow > sample) sample = slow;
        if (sample > MOST_LEVEL) sample = MOST_LEVEL;
    } else if (pool && level - pool > self->noise && sample - pool <= self->noise) {
        levels[slot] = pool + self->noise - self->noise / EDGE;
        back[slot] = now;
        return;
    }
    levels[slot] = level + divided(sample - level, self->weight);
    *pools = pool ? pool + divided(sample - pool, self->pool_weight) : sample;
}

static int answers_fill(Answers *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"claims", "pool", "level", "heard", "picked", "back", "totals", "waiting", "pool_cell",
                            "weight", "pool_weight", "noise", "failure", NULL};
    PyObject *claims, *pool, *level, *heard, *picked, *back, *totals, *waiting;
    long long weight, pool_weight, noise, failure;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!OOOOOOOnLLLL", names, claims_type, &claims, &pool, &level, &heard, &picked,
                                     &back, &totals, &waiting, &self->pool_cell, &weight, &pool_weight, &noise, &failure))
        return -1;
    if (self->pool_cell < 0 || self->pool_cell >= POLICY_CELLS || weight < 1 || weight > MOST_STEP || pool_weight < 1 ||
        pool_weight > MOST_STEP || noise < 0 || noise > MOST_STEP || failure < 0 || failure > MOST_STEP) {
        PyErr_SetString(PyExc_ValueError, "pool_cell, weight, pool_weight, noise or failure is out of its range");
        return -1;
    }
    self->claims = (Claims *)Py_NewRef(claims);
    self->weight = weight, self->pool_weight = pool_weight, self->noise = noise, self->failure = failure;
    Py_ssize_t slots = self->claims->totals.len / (Py_ssize_t)sizeof(int64_t);
    if (take_cells(pool, &self->pool, self->pool_cell + 1) < 0 || take_cells(level, &self->level, slots) < 0 ||
        take_cells(heard, &self->heard, slots) < 0 || take_cells(picked, &self->picked, slots) < 0 ||
        take_cells(back, &self->back, slots) < 0 || take_cells(totals, &self->totals, slots) < 0 ||
        take_cells(waiting, &self->waiting, slots) < 0)
        return -1;
    return 0;
}

static PyObject *answers_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Answers *self = (Answers *)type->tp_alloc(type, 0);
    if (self && answers_fill(self, args, kwargs) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* No tp_clear: every cycle leads through `claims`, which has one. */
static int answers_traverse(Answers *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->claims);
    return 0;
}

static void answers_dealloc(Answers *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    PyBuffer_Release(&self->pool);
    PyBuffer_Release(&self->level);
    PyBuffer_Release(&self->heard);
    PyBuffer_Release(&self->picked);
    PyBuffer_Release(&self->back);
    PyBuffer_Release(&self->totals);
    PyBuffer_Release(&self->waiting);
    Py_XDECREF(self->claims);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* (slot, failed, begun, now, ending), with a release, or without: `failed` is not looked at then. */
static PyObject *end_and_release(Answers *self, PyObject *const *args, Py_ssize_t count, int releases) {
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "expected slot, failed, begun, now, ending");
        return NULL;
    }
    Py_ssize_t slot = PyLong_AsSsize_t(args[0]);
    int failed = PyObject_IsTrue(args[1]);
    int64_t begun = PyLong_AsLongLong(args[2]), now = PyLong_AsLongLong(args[3]), ending = PyLong_AsLongLong(args[4]);
    if (failed < 0 || PyErr_Occurred()) return NULL;
    Claims *claims = self->claims;
    if (slot < 0 || slot >= claims->totals.len / (Py_ssize_t)sizeof(int64_t)) {
        PyErr_Format(PyExc_IndexError, "no slot %zd", slot);
        return NULL;
    }
    int entered = enter(claims);
    if (entered < 0) return NULL;
    if (!entered) Py_RETURN_FALSE;
    int held = cells_of(&claims->claims)[slot] > 0 && cells_of(&self->waiting)[slot] > 0;
    if (held) {
        end_wait(self, slot, begun, now, (int)ending);
        if (releases) release_one(claims, slot, failed);
    }
    if (leave(claims) < 0) return NULL;
    return PyBool_FromLong(held);
}

PyDoc_STRVAR(answers_release_doc,
"release(slot, failed, begun, now, ending) -> bool\n\n"
"Take one claim of this worker back whose answer was awaited until now. False, and nothing was done, when the lock was not to be had\n"
"at once or there is no such claim.");

static PyObject *answers_release(Answers *self, PyObject *const *args, Py_ssize_t count) {
    return end_and_release(self, args, count, 1);
}

PyDoc_STRVAR(answers_end_doc,
"end(slot, failed, begun, now, ending) -> bool\n\n"
"The head of a response has come; the claim stays. False as for `release`.");

static PyObject *answers_end(Answers *self, PyObject *const *args, Py_ssize_t count) {
    return end_and_release(self, args, count, 0);
}

static PyMethodDef answers_methods[] = {
    {"release", (PyCFunction)(void (*)(void))answers_release, METH_FASTCALL, answers_release_doc},
    {"end", (PyCFunction)(void (*)(void))answers_end, METH_FASTCALL, answers_end_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot answers_slots[] = {
    {Py_tp_doc, "Answers(claims, pool, level, heard, picked, back, totals, waiting, pool_cell, weight, pool_weight, noise, failure)\n\n"
                "How long the servers of one pool take to answer."},
    {Py_tp_new, answers_new},
    {Py_tp_traverse, answers_traverse},
    {Py_tp_dealloc, answers_dealloc},
    {Py_tp_methods, answers_methods},
    {0, NULL},
};
static PyType_Spec answers_spec = {
    "prefork_lb.native.claims.Answers", sizeof(Answers), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    answers_slots,
};
