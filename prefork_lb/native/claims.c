/* The hottest step in C: picks a server by least connections, counts the claim under the ledger's lock, and releases it. And what
 * else requests count under that lock.
 *
 * The lock, this worker's row and the release are in this file, the pick and the claim in least_connections.h, the times of answers
 * in answers.h, and limits of a rate in rates.h.
 *
 * Optional. prefork_lb.shared (ledger, rate_table) and prefork_lb.balance (least_connections, rotation) do the same in Python;
 * both must give the same numbers, and the same tests run over both. It has two advantages. The Python code costs 5 us more a
 * request. And the lock is held for 0.3 us instead of 4 us, so other workers rarely wait and its owner is rarely preempted.
 *
 * Everything is done with the GIL held. Stores are volatile, so that they happen in the order written: a process may be killed
 * between any two of them (see the ledger).
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

typedef volatile int64_t cell;

enum { SPINS = 20, POLICY_CELLS = 8 };

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

static PyTypeObject *claims_type; /* the module is loaded once in a process */

/* ---- Claims: this process' row of the ledger ---- */

typedef struct {
    PyObject_HEAD
    Py_buffer memory, totals, claims, requests, failures, penalties;
    pthread_mutex_t *mutex;
    PyObject *recover; /* NULL once the collector has cleared it */
} Claims;

/* The mutex at a byte of the memory; NULL with an exception. */
static pthread_mutex_t *mutex_at(const Py_buffer *memory, Py_ssize_t byte) {
    const Py_ssize_t size = (Py_ssize_t)sizeof(pthread_mutex_t);
    if (byte < 0 || memory->len < size || byte > memory->len - size) {
        PyErr_Format(PyExc_ValueError, "no room for a lock at byte %zd", byte);
        return NULL;
    }
    char *place = (char *)memory->buf + byte;
    if ((uintptr_t)place % _Alignof(pthread_mutex_t)) {
        PyErr_Format(PyExc_ValueError, "a lock cannot begin at byte %zd: it is not aligned", byte);
        return NULL;
    }
    return (pthread_mutex_t *)place;
}

static int claims_fill(Claims *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"memory", "lock_byte", "totals", "claims", "requests", "failures", "penalties", "recover", NULL};
    PyObject *memory, *totals, *claims, *requests, *failures, *penalties, *recover;
    Py_ssize_t lock_byte;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OnOOOOOO", names, &memory, &lock_byte, &totals, &claims, &requests,
                                     &failures, &penalties, &recover))
        return -1;
    if (!PyCallable_Check(recover)) {
        PyErr_SetString(PyExc_TypeError, "recover cannot be called");
        return -1;
    }
    if (take_cells(memory, &self->memory, 0) < 0 || take_cells(totals, &self->totals, 0) < 0) return -1;
    Py_ssize_t servers = self->totals.len / (Py_ssize_t)sizeof(int64_t);
    if (take_cells(claims, &self->claims, servers) < 0 || take_cells(requests, &self->requests, servers) < 0 ||
        take_cells(failures, &self->failures, servers) < 0 || take_cells(penalties, &self->penalties, servers) < 0)
        return -1;
    if (!(self->mutex = mutex_at(&self->memory, lock_byte))) return -1;
    self->recover = Py_NewRef(recover);
    return 0;
}

/* tp_new does all the work and there is no tp_init: an object is complete or does not exist, and it cannot be initialised twice. */
static PyObject *claims_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Claims *self = (Claims *)type->tp_alloc(type, 0);
    if (self && claims_fill(self, args, kwargs) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* `recover` belongs to the lock of a ledger, which holds its Claims: a cycle.
 *
 * The owners of the buffers are not visited, so the collector never clears them. They are memoryviews and not part of a cycle.
 * Python before 3.11.9 and 3.12.3 crashes when it clears a memoryview whose buffer is held (gh-77894).
 */
static int claims_traverse(Claims *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->recover);
    return 0;
}

static int claims_clear(Claims *self) {
    Py_CLEAR(self->recover);
    return 0;
}

static void claims_dealloc(Claims *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->recover);
    PyBuffer_Release(&self->memory);
    PyBuffer_Release(&self->totals);
    PyBuffer_Release(&self->claims);
    PyBuffer_Release(&self->requests);
    PyBuffer_Release(&self->failures);
    PyBuffer_Release(&self->penalties);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* 1: taken; 0: another has it; -1: an exception is set. */
static int enter(Claims *self) {
    int result = EBUSY;
    for (int tries = 0; tries < SPINS && result == EBUSY; tries++) result = pthread_mutex_trylock(self->mutex);
    if (result == 0) return 1;
    if (result == EBUSY) return 0;
    if (!self->recover) {
        PyErr_SetString(PyExc_RuntimeError, "the ledger of these claims is gone");
        return -1;
    }
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

/* The lock must be held. The total first: a kill between the two leaves a claim in the row, which is given back. */
static void release_one(Claims *self, Py_ssize_t slot, int failed) {
    cells_of(&self->totals)[slot] -= 1;
    cells_of(&self->claims)[slot] -= 1;
    if (failed) cells_of(&self->failures)[slot] += 1;
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
    int held = cells_of(&self->claims)[slot] > 0;
    if (held) release_one(self, slot, failed);
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
    {Py_tp_new, claims_new},
    {Py_tp_traverse, claims_traverse},
    {Py_tp_clear, claims_clear},
    {Py_tp_dealloc, claims_dealloc},
    {Py_tp_methods, claims_methods},
    {0, NULL},
};
static PyType_Spec claims_spec = {
    "prefork_lb.native.claims.Claims", sizeof(Claims), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    claims_slots,
};

#include "answers.h"
#include "least_connections.h"
#include "rates.h"

/* ---- The module ---- */

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
    if (claims_type) answers_type = add_type(module, "Answers", &answers_spec);
    if (!answers_type || !add_type(module, "LeastConnections", &picker_spec) || !add_type(module, "Rates", &rates_spec) ||
        PyModule_AddIntConstant(module, "MOST_SERVERS", MOST_SERVERS) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
