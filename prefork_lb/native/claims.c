/* The hottest step in C: a claim, picked by least connections and counted under the ledger's lock, and its release.
 *
 * Optional. prefork_lb.shared.ledger, prefork_lb.balance.least_connections and prefork_lb.balance.rotation are what it has to
 * equal, number by number; the same tests run over both. It is worth its keep twice: the Python costs 5 us more a request, and
 * a section of 0.3 us instead of 4 us is hardly ever met by another worker, nor its owner preempted inside.
 *
 * Everything is done with the GIL held. Stores are volatile, so that they happen in the order written: a process may be killed
 * between any two of them (see the ledger).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <structmember.h>

typedef volatile int64_t cell;

enum { SPINS = 20, MOST_SERVERS = 1024, IDLE_PICKS = 2, MEMORY_ROUNDS = 4 };
static const int64_t UNIT = 18018000; /* balance/rotation.py */

static cell *cells_of(Py_buffer *view) { return (cell *)view->buf; }

/* A writable buffer of 64-bit integers, at least `least` of them (0: any). */
static int take_cells(PyObject *object, Py_buffer *view, Py_ssize_t least) {
    if (PyObject_GetBuffer(object, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) return -1;
    if (view->len < least * (Py_ssize_t)sizeof(int64_t) || (uintptr_t)view->buf % sizeof(int64_t)) {
        PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes; expected %zd aligned 64-bit integers", view->len, least);
        PyBuffer_Release(view);
        view->obj = NULL;
        return -1;
    }
    return 0;
}

static PyTypeObject *claims_type; /* of the one module there is */

/* ---- Claims: this process' row of the ledger ---- */

typedef struct {
    PyObject_HEAD
    Py_buffer memory, totals, claims, requests, failures, penalties;
    pthread_mutex_t *mutex;
    PyObject *recover;
} Claims;

static int claims_init(Claims *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"memory", "lock_byte", "totals", "claims", "requests", "failures", "penalties", "recover", NULL};
    PyObject *memory, *totals, *claims, *requests, *failures, *penalties, *recover;
    Py_ssize_t lock_byte;
    if (self->recover) {
        PyErr_SetString(PyExc_TypeError, "made already");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnOOOOOO", names, &memory, &lock_byte, &totals, &claims, &requests,
                                     &failures, &penalties, &recover))
        return -1;
    if (take_cells(memory, &self->memory, 0) < 0 || take_cells(totals, &self->totals, 0) < 0) return -1;
    Py_ssize_t servers = self->totals.len / (Py_ssize_t)sizeof(int64_t);
    if (take_cells(claims, &self->claims, servers) < 0 || take_cells(requests, &self->requests, servers) < 0 ||
        take_cells(failures, &self->failures, servers) < 0 || take_cells(penalties, &self->penalties, servers) < 0)
        return -1;
    if (lock_byte < 0 || lock_byte + (Py_ssize_t)sizeof(pthread_mutex_t) > self->memory.len) {
        PyErr_Format(PyExc_ValueError, "no room for a lock at byte %zd", lock_byte);
        return -1;
    }
    self->mutex = (pthread_mutex_t *)((char *)self->memory.buf + lock_byte);
    self->recover = Py_NewRef(recover);
    return 0;
}

static void claims_dealloc(Claims *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyBuffer_Release(&self->memory);
    PyBuffer_Release(&self->totals);
    PyBuffer_Release(&self->claims);
    PyBuffer_Release(&self->requests);
    PyBuffer_Release(&self->failures);
    PyBuffer_Release(&self->penalties);
    Py_XDECREF(self->recover);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* 1: taken; 0: another has it; -1: an exception is set. */
static int enter(Claims *self) {
    int result = EBUSY;
    for (int tries = 0; tries < SPINS && result == EBUSY; tries++) result = pthread_mutex_trylock(self->mutex);
    if (result == 0) return 1;
    if (result == EBUSY) return 0;
    PyObject *done = PyObject_CallFunction(self->recover, "i", result);
    if (!done) return -1;
    Py_DECREF(done);
    return 1;
}

static int leave(Claims *self) {
    int result = pthread_mutex_unlock(self->mutex);
    if (!result) return 0;
    PyErr_Format(PyExc_RuntimeError, "pthread_mutex_unlock: %s", strerror(result));
    return -1;
}

PyDoc_STRVAR(release_doc,
"release(slot, failed) -> bool\n\n"
"Take one claim of this worker back. False, and nothing was done, when the lock was not to be had at once or there is no claim.");

static PyObject *claims_release(Claims *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "release(slot, failed)");
        return NULL;
    }
    Py_ssize_t slot = PyLong_AsSsize_t(args[0]);
    int failed = PyObject_IsTrue(args[1]);
    if ((slot == -1 && PyErr_Occurred()) || failed < 0) return NULL;
    if (slot < 0 || slot >= self->totals.len / (Py_ssize_t)sizeof(int64_t)) {
        PyErr_Format(PyExc_IndexError, "no slot %zd", slot);
        return NULL;
    }
    int entered = enter(self);
    if (entered < 0) return NULL;
    if (!entered) Py_RETURN_FALSE;
    cell *claims = cells_of(&self->claims);
    int held = claims[slot] > 0;
    if (held) { /* the total first: a kill between the two leaves a claim in the row, which is given back */
        cells_of(&self->totals)[slot] -= 1;
        claims[slot] -= 1;
        if (failed) cells_of(&self->failures)[slot] += 1;
    }
    if (leave(self) < 0) return NULL;
    return PyBool_FromLong(held);
}

static PyMethodDef claims_methods[] = {
    {"release", (PyCFunction)(void (*)(void))claims_release, METH_FASTCALL, release_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot claims_slots[] = {
    {Py_tp_doc, "Claims(memory, lock_byte, totals, claims, requests, failures, penalties, recover)\n\n"
                "A worker's row of the ledger. `recover(errno)` is called when the lock's last owner died inside it."},
    {Py_tp_init, claims_init},
    {Py_tp_dealloc, claims_dealloc},
    {Py_tp_methods, claims_methods},
    {0, NULL},
};
static PyType_Spec claims_spec = {"prefork_lb.native.claims.Claims", sizeof(Claims), 0, Py_TPFLAGS_DEFAULT, claims_slots};

/* ---- LeastConnections: claims on the servers of one pool ---- */

typedef struct {
    int64_t slot, weight, limit;
} Server;

typedef struct {
    PyObject_HEAD
    Claims *claims;
    Py_buffer pool, last, finish;
    Server *servers;
    Py_ssize_t count;
    int64_t total_weight;
    int equal; /* all weights are the same */
} Picker;

static int picker_init(Picker *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"claims", "servers", "pool", "last", "finish", NULL};
    PyObject *claims, *servers, *pool, *last, *finish;
    if (self->claims) {
        PyErr_SetString(PyExc_TypeError, "made already");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO!OOO", names, &claims, &PyTuple_Type, &servers, &pool, &last, &finish))
        return -1;
    if (!PyObject_TypeCheck(claims, claims_type)) {
        PyErr_SetString(PyExc_TypeError, "the first argument is no Claims");
        return -1;
    }
    Py_ssize_t slots = ((Claims *)claims)->totals.len / (Py_ssize_t)sizeof(int64_t);
    self->claims = (Claims *)Py_NewRef(claims);
    if (take_cells(pool, &self->pool, IDLE_PICKS + 1) < 0 || take_cells(last, &self->last, slots) < 0 ||
        take_cells(finish, &self->finish, slots) < 0)
        return -1;
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
        Server *server = &self->servers[i];
        long long slot, weight, limit;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(servers, i), "LLL", &slot, &weight, &limit)) return -1;
        if (slot < 0 || slot >= slots || weight < 1) {
            PyErr_Format(PyExc_ValueError, "slot %lld, weight %lld", slot, weight);
            return -1;
        }
        server->slot = slot, server->weight = weight, server->limit = limit;
        self->total_weight += weight;
        self->equal &= weight == self->servers[0].weight;
    }
    return 0;
}

static void picker_dealloc(Picker *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyBuffer_Release(&self->pool);
    PyBuffer_Release(&self->last);
    PyBuffer_Release(&self->finish);
    PyMem_Free(self->servers);
    Py_XDECREF(self->claims);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Whose turn it is among the tied (balance/rotation.py, Rotation.pick). */
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

/* Account for the pick (Rotation.taken). */
static void taken(Picker *self, const Server *server) {
    cell *pool = cells_of(&self->pool), *finish = cells_of(&self->finish);
    cells_of(&self->last)[server->slot] = pool[0] + 1;
    pool[0] += 1;
    if (self->equal) return;
    int64_t step = UNIT / server->weight, virtual = pool[1];
    int64_t start = virtual - step > finish[server->slot] ? virtual - step : finish[server->slot];
    finish[server->slot] = start + step;
    int64_t next = virtual + UNIT / self->total_weight, least = start - MEMORY_ROUNDS * UNIT;
    pool[1] = next > least ? next : least;
}

/* The least loaded server (balance/least_connections.py); -1 when that is for the Python to say. */
static Py_ssize_t pick(Picker *self) {
    cell *totals = cells_of(&self->claims->totals), *penalties = cells_of(&self->claims->penalties), *pool = cells_of(&self->pool);
    int16_t tied[MOST_SERVERS];
    tied[0] = 0;
    Py_ssize_t ties = 0;
    int64_t best_load = 1, best_weight = 0, in_flight = 0; /* infinite */
    for (Py_ssize_t i = 0; i < self->count; i++) {
        const Server *server = &self->servers[i];
        int64_t count = totals[server->slot];
        if (count >= server->limit) return -1; /* not all are candidates */
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
    if (in_flight && pool[IDLE_PICKS]) pool[IDLE_PICKS] = 0;
    return turn(self, tied, ties);
}

PyDoc_STRVAR(claim_doc,
"claim() -> int\n\n"
"Pick a server and count the claim: its index. -1, and nothing was done, when the lock was not to be had at once, a server is full,\n"
"or nothing is in flight on servers of unequal weights.");

static PyObject *picker_claim(Picker *self, PyObject *Py_UNUSED(ignored)) {
    Claims *claims = self->claims;
    int entered = enter(claims);
    if (entered < 0) return NULL;
    if (!entered) return PyLong_FromLong(-1);
    Py_ssize_t index = pick(self);
    if (index >= 0) {
        const Server *server = &self->servers[index];
        taken(self, server);
        cells_of(&claims->claims)[server->slot] += 1; /* the row before the total, as in the ledger */
        cells_of(&claims->totals)[server->slot] += 1;
        cells_of(&claims->requests)[server->slot] += 1;
    }
    if (leave(claims) < 0) return NULL;
    return PyLong_FromSsize_t(index);
}

static PyMethodDef picker_methods[] = {
    {"claim", (PyCFunction)picker_claim, METH_NOARGS, claim_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot picker_slots[] = {
    {Py_tp_doc, "LeastConnections(claims, servers, pool, last, finish)\n\n"
                "Claims by least connections. `servers` are tuples (slot, weight, limit); the buffers are the policy's memory."},
    {Py_tp_init, picker_init},
    {Py_tp_dealloc, picker_dealloc},
    {Py_tp_methods, picker_methods},
    {0, NULL},
};
static PyType_Spec picker_spec = {"prefork_lb.native.claims.LeastConnections", sizeof(Picker), 0, Py_TPFLAGS_DEFAULT, picker_slots};

/* The type, borrowed from the module; NULL with an exception. */
static PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    if (!type) return NULL;
    int result = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return result < 0 ? NULL : (PyTypeObject *)type;
}

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.claims", "A claim and its release in C; see claims.c.", -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_claims(void) {
    PyObject *module = PyModule_Create(&module_def);
    if (!module) return NULL;
    claims_type = add_type(module, "Claims", &claims_spec);
    if (!claims_type || !add_type(module, "LeastConnections", &picker_spec)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
