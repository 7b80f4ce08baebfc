/* The hub's rounds, clients taken, and the operations of streams on plain sockets, in C.
 *
 * Optional. prefork_lb.green.rounds and prefork_lb.green.streams do the same in Python, and the same tests run over both. Each event
 * costs a few calls of greenlets and owners, and else no object.
 */
#define _GNU_SOURCE /* accept4 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <unistd.h>
#include "channel.h"
#include "accept.h"

typedef struct {
    PyObject_HEAD
    PyObject *channels, *watchers; /* dicts by descriptor */
    int epoll, count, room;
    struct epoll_event *events;
} Rounds;

static PyObject *rounds_new(PyTypeObject *type, PyObject *args, PyObject *names) {
    int epoll;
    PyObject *channels, *watchers;
    if ((names && PyDict_GET_SIZE(names)) ||
        !PyArg_ParseTuple(args, "iO!O!", &epoll, &PyDict_Type, &channels, &PyDict_Type, &watchers)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Rounds(epoll: int, channels: dict, watchers: dict)");
        return NULL;
    }
    Rounds *self = (Rounds *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->epoll = epoll;
    self->channels = Py_NewRef(channels), self->watchers = Py_NewRef(watchers);
    return (PyObject *)self;
}

static int rounds_traverse(Rounds *self, visitproc visit, void *arg) {
    Py_VISIT(self->channels);
    Py_VISIT(self->watchers);
    return 0;
}

static int rounds_clear(Rounds *self) {
    Py_CLEAR(self->channels);
    Py_CLEAR(self->watchers);
    return 0;
}

static void rounds_dealloc(Rounds *self) {
    PyObject_GC_UnTrack(self);
    rounds_clear(self);
    PyMem_Free(self->events);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyDoc_STRVAR(collect_doc,
"collect(wait_s, most) -> int\n\n"
"Wait for events, at most so many seconds (negative: without end), and keep at most `most` of them: their number.");

static PyObject *collect(Rounds *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "collect(wait_s, most)");
        return NULL;
    }
    double wait_s = PyFloat_AsDouble(args[0]);
    long most = PyLong_AsLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (most < 1 || most > INT_MAX / (int)sizeof(struct epoll_event)) {
        PyErr_SetString(PyExc_ValueError, "collect: no such number of events");
        return NULL;
    }
    if (most > self->room) {
        struct epoll_event *events = PyMem_Realloc(self->events, (size_t)most * sizeof(struct epoll_event));
        if (!events) return PyErr_NoMemory();
        self->events = events, self->room = (int)most;
    }
    double wait_ms = ceil(wait_s * 1000);
    int timeout_ms = wait_s < 0 ? -1 : wait_ms < INT_MAX ? (int)wait_ms : INT_MAX, found;
    self->count = 0;
    /* Python looks for signals between two instructions, and a round may have passed without any. */
    if (PyErr_CheckSignals()) return NULL;
    Py_BEGIN_ALLOW_THREADS
    found = epoll_wait(self->epoll, self->events, (int)most, timeout_ms);
    Py_END_ALLOW_THREADS
    if (found < 0 && errno != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
    if (found < 0) {
        if (PyErr_CheckSignals()) return NULL;
        found = 0; /* the hub works out anew how long to wait */
    }
    return PyLong_FromLong(self->count = found);
}

/* Resume the greenlet in one of the channel's places, which no longer waits in the other one either. 0, or -1 with an exception. */
static int resume(Channel *channel, PyObject **place, PyObject **other) {
    PyObject *waiter = *place;
    *place = Py_NewRef(Py_None);
    if (*other == waiter) Py_SETREF(*other, Py_NewRef(Py_None));
    PyObject *done = PyObject_CallMethodOneArg(waiter, str_switch, (PyObject *)channel);
    Py_DECREF(waiter);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int tell_owner(PyObject *owner, int mask) {
    PyObject *events = PyLong_FromLong(mask);
    Py_INCREF(owner); /* it may let go of the channel */
    PyObject *done = events ? PyObject_CallMethodOneArg(owner, str_on_events, events) : NULL;
    Py_DECREF(owner);
    Py_XDECREF(events);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int deliver_to(Channel *channel, int mask) {
    channel->ready |= mask;
    if (mask & READABLE) {
        if (channel->reader != Py_None) {
            if (resume(channel, &channel->reader, &channel->writer)) return -1;
        } else if (channel->owner != Py_None && tell_owner(channel->owner, mask)) {
            return -1;
        }
    }
    return mask & WRITABLE && channel->writer != Py_None ? resume(channel, &channel->writer, &channel->reader) : 0;
}

static int deliver_one(Rounds *self, int descriptor, int mask) {
    PyObject *key = PyLong_FromLong(descriptor);
    if (!key) return -1;
    PyObject *target = PyDict_GetItemWithError(self->channels, key);
    int result = PyErr_Occurred() ? -1 : 0;
    if (target && PyObject_TypeCheck(target, &ChannelType)) {
        Py_INCREF(target);
        result = deliver_to((Channel *)target, mask);
        Py_DECREF(target);
    } else if (target) {
        PyErr_SetString(PyExc_TypeError, "deliver: no Channel");
        result = -1;
    } else if (!result && (target = PyDict_GetItemWithError(self->watchers, key))) {
        Py_INCREF(target);
        PyObject *done = PyObject_CallNoArgs(target);
        Py_DECREF(target);
        Py_XDECREF(done);
        result = done ? 0 : -1;
    } else if (PyErr_Occurred()) {
        result = -1;
    }
    Py_DECREF(key);
    return result;
}

PyDoc_STRVAR(deliver_doc,
"deliver()\n\nTell the channels and watchers of the events that were collected. What they raise ends it; the rest is lost then.");

static PyObject *deliver(Rounds *self, PyObject *Py_UNUSED(ignored)) {
    int count = self->count;
    self->count = 0;
    for (int i = 0; i < count; i++)
        if (deliver_one(self, self->events[i].data.fd, (int)self->events[i].events)) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef rounds_methods[] = {
    {"collect", (PyCFunction)(void (*)(void))collect, METH_FASTCALL, collect_doc},
    {"deliver", (PyCFunction)deliver, METH_NOARGS, deliver_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject RoundsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "prefork_lb.native.loop.Rounds",
    .tp_doc = "Rounds(epoll, channels, watchers)\n\nThe events of a hub, a round at a time; see green.rounds.",
    .tp_basicsize = sizeof(Rounds),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = rounds_new,
    .tp_traverse = (traverseproc)rounds_traverse,
    .tp_clear = (inquiry)rounds_clear,
    .tp_dealloc = (destructor)rounds_dealloc,
    .tp_methods = rounds_methods,
};

PyDoc_STRVAR(use_doc,
"use(stream_closed, stream_timeout, getcurrent)\n\nThe exceptions of streams, and greenlet's getcurrent. Comes before any stream.");

static PyObject *use(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || !PyExceptionClass_Check(args[0]) || !PyExceptionClass_Check(args[1]) || !PyCallable_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "use(stream_closed, stream_timeout, getcurrent)");
        return NULL;
    }
    Py_XSETREF(stream_closed, Py_NewRef(args[0]));
    Py_XSETREF(stream_timeout, Py_NewRef(args[1]));
    Py_XSETREF(get_current, Py_NewRef(args[2]));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"accept", accept_client, METH_O, accept_doc},
    {"use", (PyCFunction)(void (*)(void))use, METH_FASTCALL, use_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.loop", "The hub's rounds, accepts and plain streams in C; see loop.c.", -1, methods, NULL, NULL, NULL,
    NULL,
};

static int intern_names(void) {
    static const struct {
        PyObject **place;
        const char *text;
    } names[] = {{&str_arm, "arm"}, {&str_is_gone, "is_gone"}, {&str_now, "now"}, {&str_on_events, "on_events"},
                 {&str_register, "register"}, {&str_send_rest, "_send_rest"}, {&str_share, "share"}, {&str_switch, "switch"}, {&str_turns, "turns"},
                 {&str_waiting, "waiting"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!*names[i].place && !(*names[i].place = PyUnicode_InternFromString(names[i].text))) return -1;
    return 0;
}

PyMODINIT_FUNC PyInit_loop(void) {
    if (intern_names() || PyType_Ready(&ChannelType) || PyType_Ready(&RoundsType)) return NULL;
    PyObject *module = PyModule_Create(&module_def);
    if (module && (PyModule_AddObjectRef(module, "Channel", (PyObject *)&ChannelType) ||
                   PyModule_AddObjectRef(module, "Rounds", (PyObject *)&RoundsType)))
        Py_CLEAR(module);
    return module;
}
