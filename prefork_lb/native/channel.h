/* A channel (green/channel.py), and what a stream over a plain socket does with it (green/streams.py). Included by loop.c alone.
 *
 * Everything is done with the GIL held: the sockets are non-blocking, so no call waits.
 */
#include <errno.h>
#include <string.h>
#include <structmember.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* green/channel.py has the same. */
enum { READ = EPOLLIN, HALF_CLOSED = EPOLLRDHUP, BROKEN = EPOLLHUP | EPOLLERR, READABLE = READ | HALF_CLOSED | BROKEN,
       WRITABLE = EPOLLOUT | BROKEN };

enum { BUFFER_BYTES = 64 * 1024 };
static char buffer[BUFFER_BYTES]; /* of a receive, until its bytes are copied */

/* What Python has and this needs; `use` sets them. */
static PyObject *stream_closed, *stream_timeout, *get_current;

static PyObject *str_arm, *str_is_gone, *str_now, *str_on_events, *str_register, *str_send_rest, *str_share, *str_switch, *str_turns, *str_waiting;

typedef struct {
    PyObject_HEAD
    PyObject *hub, *reader, *writer, *owner; /* never NULL, but while the collector clears them */
    int descriptor, ready;
    double deadline, looked_at;
} Channel;

static PyObject *channel_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(names)) {
    Channel *self = (Channel *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->hub = Py_NewRef(Py_None), self->reader = Py_NewRef(Py_None), self->writer = Py_NewRef(Py_None);
    self->owner = Py_NewRef(Py_None);
    self->descriptor = -1;
    self->deadline = self->looked_at = Py_HUGE_VAL;
    return (PyObject *)self;
}

/* As _Attributes.__init__. */
static int channel_init(Channel *self, PyObject *args, PyObject *names) {
    PyObject *hub;
    int descriptor;
    if ((names && PyDict_GET_SIZE(names)) || !PyArg_ParseTuple(args, "Oi", &hub, &descriptor)) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "Channel(hub, descriptor: int)");
        return -1;
    }
    Py_XSETREF(self->hub, Py_NewRef(hub));
    self->descriptor = descriptor;
    PyObject *done = PyObject_CallMethodOneArg(hub, str_register, (PyObject *)self);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int channel_traverse(Channel *self, visitproc visit, void *arg) {
    Py_VISIT(self->hub);
    Py_VISIT(self->reader);
    Py_VISIT(self->writer);
    Py_VISIT(self->owner);
    return 0;
}

static int channel_clear(Channel *self) {
    Py_CLEAR(self->hub);
    Py_CLEAR(self->reader);
    Py_CLEAR(self->writer);
    Py_CLEAR(self->owner);
    return 0;
}

static void channel_dealloc(Channel *self) {
    PyObject_GC_UnTrack(self);
    channel_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *raise_closed(int error) {
    PyObject *text = PyUnicode_DecodeLocale(strerror(error), "surrogateescape");
    if (text) PyErr_SetObject(stream_closed, text);
    Py_XDECREF(text);
    return NULL;
}

static int would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

/* What is there, None, or NULL with an exception: GreenStream.receive_now. */
static PyObject *receive_some(Channel *self, Py_ssize_t limit) {
    if (limit < 0) {
        PyErr_SetString(PyExc_ValueError, "a negative limit of what is received");
        return NULL;
    }
    PyObject *data = NULL;
    char *to = buffer;
    if (limit > BUFFER_BYTES) {
        if (!(data = PyBytes_FromStringAndSize(NULL, limit))) return NULL;
        to = PyBytes_AS_STRING(data);
    }
    ssize_t count;
    while ((count = recv(self->descriptor, to, (size_t)limit, 0)) < 0 && errno == EINTR)
        if (PyErr_CheckSignals()) break;
    if (count < 0) {
        int error = errno;
        Py_XDECREF(data);
        if (PyErr_Occurred()) return NULL;
        if (!would_block(error)) return raise_closed(error);
        self->ready &= ~READ;
        Py_RETURN_NONE;
    }
    if (count < limit && !(self->ready & (HALF_CLOSED | BROKEN))) self->ready &= ~READ;
    if (!data) return PyBytes_FromStringAndSize(buffer, count);
    _PyBytes_Resize(&data, count);
    return data;
}

/* How many bytes went; -1 with an exception. */
static Py_ssize_t send_some(Channel *self, const Py_buffer *data, int flags) {
    ssize_t count;
    while ((count = send(self->descriptor, data->buf, (size_t)data->len, MSG_NOSIGNAL | flags)) < 0 && errno == EINTR)
        if (PyErr_CheckSignals()) return -1;
    if (count >= 0) return count;
    if (would_block(errno)) return 0;
    raise_closed(errno);
    return -1;
}

static PyObject *receive_now(Channel *self, PyObject *limit) {
    Py_ssize_t most = PyLong_AsSsize_t(limit);
    return most == -1 && PyErr_Occurred() ? NULL : receive_some(self, most);
}

static PyObject *send_now(Channel *self, PyObject *data) {
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)) return NULL;
    Py_ssize_t sent = send_some(self, &view, 0);
    PyBuffer_Release(&view);
    return sent < 0 ? NULL : PyLong_FromSsize_t(sent);
}

static PyObject *send_with(Channel *self, PyObject *const *args, Py_ssize_t count, int flags) {
    Py_buffer view;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "send and send_last take (data, timeout_s)");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE)) return NULL;
    Py_ssize_t sent = send_some(self, &view, flags), all = view.len;
    PyBuffer_Release(&view);
    if (sent < 0) return NULL;
    if (sent == all) Py_RETURN_TRUE;
    PyObject *so_far = PyLong_FromSsize_t(sent);
    PyObject *done = so_far ? PyObject_CallMethodObjArgs((PyObject *)self, str_send_rest, args[0], so_far, args[1], NULL) : NULL;
    Py_XDECREF(so_far);
    if (!done) return NULL;
    Py_DECREF(done);
    Py_RETURN_FALSE;
}

static PyObject *send_all(Channel *self, PyObject *const *args, Py_ssize_t count) { return send_with(self, args, count, 0); }

/* The bytes wait for the end, which leaves at once: a close with bytes of the peer unread would drop them. */
static PyObject *send_last(Channel *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *all_went = send_with(self, args, count, MSG_MORE);
    if (all_went == Py_True) shutdown(self->descriptor, SHUT_WR); /* fails when the peer has gone */
    return all_went;
}

static int found_input(Channel *self) {
    if ((self->ready & READABLE) != READ) return (self->ready & READABLE) != 0;
    char byte;
    if (recv(self->descriptor, &byte, 1, MSG_PEEK) < 0 && would_block(errno)) {
        self->ready &= ~READ;
        return 0;
    }
    return 1;
}

static PyObject *has_input(Channel *self, PyObject *Py_UNUSED(ignored)) { return PyBool_FromLong(found_input(self)); }

static PyObject *is_quiet(Channel *self, PyObject *Py_UNUSED(ignored)) {
    return PyBool_FromLong(self->descriptor >= 0 && !found_input(self));
}

/* hub.turns.share(); 0, or -1 with an exception. */
static int share(Channel *self) {
    PyObject *turns = PyObject_GetAttr(self->hub, str_turns);
    PyObject *done = turns ? PyObject_CallMethodNoArgs(turns, str_share) : NULL;
    Py_XDECREF(turns);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* hub.arm(self, deadline); 0, or -1 with an exception. */
static int arm(Channel *self, double deadline) {
    if (deadline >= self->looked_at) {
        self->deadline = deadline;
        return 0;
    }
    PyObject *instant = PyFloat_FromDouble(deadline);
    PyObject *done = instant ? PyObject_CallMethodObjArgs(self->hub, str_arm, (PyObject *)self, instant, NULL) : NULL;
    Py_XDECREF(instant);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Wait in the hub for input. 1, 0 when the deadline came first, or -1 with an exception. */
static int wait_for_input(Channel *self, double deadline, PyObject *watched) {
    if (arm(self, deadline)) return -1;
    PyObject *current = PyObject_CallNoArgs(get_current);
    if (!current) return -1;
    Py_XSETREF(self->reader, current);
    if (PyObject_SetAttr(watched, str_waiting, (PyObject *)self)) return -1;
    PyObject *hub = Py_NewRef(self->hub), *switch_to_hub = PyObject_GetAttr(hub, str_switch);
    PyObject *result = switch_to_hub ? PyObject_CallNoArgs(switch_to_hub) : NULL;
    Py_XDECREF(switch_to_hub);
    Py_DECREF(hub);
    Py_XSETREF(self->reader, Py_NewRef(Py_None));
    if (!result) return -1;
    int in_time = result != Py_None;
    Py_DECREF(result);
    return PyObject_SetAttr(watched, str_waiting, Py_None) ? -1 : in_time;
}

static PyObject *receive_or(Channel *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "receive_or(limit, timeout_s, watched)");
        return NULL;
    }
    Py_ssize_t limit = PyLong_AsSsize_t(args[0]);
    double timeout_s = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred()) return NULL;
    if (self->ready & READABLE && share(self)) return NULL;
    PyObject *now = PyObject_GetAttr(self->hub, str_now);
    double deadline = now ? PyFloat_AsDouble(now) + timeout_s : 0;
    Py_XDECREF(now);
    if (PyErr_Occurred()) return NULL;
    while (1) {
        if (self->ready & READABLE) {
            PyObject *data = receive_some(self, limit);
            if (data != Py_None) return data;
            Py_DECREF(data);
        }
        PyObject *gone = PyObject_CallMethodNoArgs(args[2], str_is_gone);
        int is_gone = gone ? PyObject_IsTrue(gone) : -1;
        Py_XDECREF(gone);
        if (is_gone < 0) return NULL;
        if (is_gone) Py_RETURN_NONE;
        int in_time = wait_for_input(self, deadline, args[2]);
        if (in_time < 0) return NULL;
        if (!in_time) {
            PyErr_SetNone(stream_timeout);
            return NULL;
        }
    }
}

static PyMethodDef channel_methods[] = {
    {"receive_now", (PyCFunction)receive_now, METH_O, NULL},
    {"receive_or", (PyCFunction)(void (*)(void))receive_or, METH_FASTCALL, NULL},
    {"send", (PyCFunction)(void (*)(void))send_all, METH_FASTCALL, NULL},
    {"send_last", (PyCFunction)(void (*)(void))send_last, METH_FASTCALL, NULL},
    {"send_now", (PyCFunction)send_now, METH_O, NULL},
    {"has_input", (PyCFunction)has_input, METH_NOARGS, NULL},
    {"is_quiet", (PyCFunction)is_quiet, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef channel_members[] = {
    {"hub", T_OBJECT_EX, offsetof(Channel, hub), 0, NULL},
    {"reader", T_OBJECT_EX, offsetof(Channel, reader), 0, NULL},
    {"writer", T_OBJECT_EX, offsetof(Channel, writer), 0, NULL},
    {"owner", T_OBJECT_EX, offsetof(Channel, owner), 0, NULL},
    {"descriptor", T_INT, offsetof(Channel, descriptor), 0, NULL},
    {"ready", T_INT, offsetof(Channel, ready), 0, NULL},
    {"deadline", T_DOUBLE, offsetof(Channel, deadline), 0, NULL},
    {"looked_at", T_DOUBLE, offsetof(Channel, looked_at), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject ChannelType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "prefork_lb.native.loop.Channel",
    .tp_doc = "What green.channel.Channel has, and the operations of green.streams.GreenStream on a plain socket.",
    .tp_basicsize = sizeof(Channel),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = channel_new,
    .tp_init = (initproc)channel_init,
    .tp_traverse = (traverseproc)channel_traverse,
    .tp_clear = (inquiry)channel_clear,
    .tp_dealloc = (destructor)channel_dealloc,
    .tp_methods = channel_methods,
    .tp_members = channel_members,
};
