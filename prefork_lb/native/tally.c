/* Counts answers of servers in a worker's block of the statistics, in C.
 *
 * Optional. prefork_lb.shared.statistics does the same in Python; both must leave the same cells, and the same tests run over both.
 * In C a count is a tenth of the work. Other processes only read, each cell by itself; so each store is one aligned 64-bit store.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

enum { MOST_BOUNDS = 32, CLASSES = 5 };

typedef struct {
    PyObject_HEAD
    Py_buffer block;
    Py_ssize_t cells, servers, server_cells, pools, pool_cells; /* of the block; where servers and pools begin, and their strides */
    Py_ssize_t received, sent, server_us, buckets, pool_us;     /* cells of a server, and of a pool */
    Py_ssize_t bounds;
    double bound[MOST_BOUNDS];
} Tally;

static int tally_init(Tally *self, PyObject *args, PyObject *names) {
    Py_buffer block;
    PyObject *bounds;
    if (names && PyDict_GET_SIZE(names)) {
        PyErr_SetString(PyExc_TypeError, "Tally takes no names");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "w*(nn)(nn)(nnn)(nn)O!", &block, &self->servers, &self->server_cells, &self->pools,
                          &self->pool_cells, &self->received, &self->sent, &self->server_us, &self->buckets, &self->pool_us,
                          &PyTuple_Type, &bounds))
        return -1;
    if (self->block.obj) PyBuffer_Release(&self->block);
    self->block = block;
    self->cells = block.len / (Py_ssize_t)sizeof(int64_t);
    self->bounds = PyTuple_GET_SIZE(bounds);
    if (self->bounds > MOST_BOUNDS || self->servers < 0 || self->server_cells < 1 || self->pools < self->servers ||
        self->pools > self->cells || self->pool_cells < 1 || self->received < CLASSES || self->received >= self->server_cells ||
        self->sent < CLASSES || self->sent >= self->server_cells || self->server_us < CLASSES ||
        self->server_us >= self->server_cells || self->buckets < 0 || self->buckets + self->bounds >= self->pool_cells ||
        self->pool_us < 0 || self->pool_us >= self->pool_cells) {
        PyErr_SetString(PyExc_ValueError, "Tally: no such block");
        return -1;
    }
    for (Py_ssize_t number = 0; number < self->bounds; number++) {
        self->bound[number] = PyFloat_AsDouble(PyTuple_GET_ITEM(bounds, number));
        if (PyErr_Occurred()) return -1;
    }
    return 0;
}

static void tally_dealloc(Tally *self) {
    if (self->block.obj) PyBuffer_Release(&self->block);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyDoc_STRVAR(count_answer_doc,
"count_answer(slot, pool, status, received, sent, seconds)\n\n"
"Count an answer of the server in this slot, in the pool with this number.");

static PyObject *count_answer(Tally *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 6) {
        PyErr_SetString(PyExc_TypeError, "count_answer(slot, pool, status, received, sent, seconds)");
        return NULL;
    }
    Py_ssize_t slot = PyLong_AsSsize_t(args[0]), pool = PyLong_AsSsize_t(args[1]);
    long status = PyLong_AsLong(args[2]);
    long long received = PyLong_AsLongLong(args[3]), sent = PyLong_AsLongLong(args[4]);
    double seconds = PyFloat_AsDouble(args[5]);
    if (PyErr_Occurred()) return NULL;
    if (slot < 0 || slot >= (self->pools - self->servers) / self->server_cells || pool < 0 ||
        pool >= (self->cells - self->pools) / self->pool_cells || status < 100) {
        PyErr_SetString(PyExc_IndexError, "count_answer: no such server, pool or status");
        return NULL;
    }
    int64_t *server = (int64_t *)self->block.buf + self->servers + slot * self->server_cells;
    int64_t *of_pool = (int64_t *)self->block.buf + self->pools + pool * self->pool_cells;
    int64_t us = (int64_t)(seconds * 1e6);
    Py_ssize_t bucket = 0;
    while (bucket < self->bounds && seconds > self->bound[bucket]) bucket++;
    server[status / 100 > CLASSES ? CLASSES - 1 : status / 100 - 1]++;
    server[self->received] += received;
    server[self->sent] += sent;
    server[self->server_us] += us;
    of_pool[self->buckets + bucket]++;
    of_pool[self->pool_us] += us;
    Py_RETURN_NONE;
}

static PyMethodDef tally_methods[] = {
    {"count_answer", (PyCFunction)(void (*)(void))count_answer, METH_FASTCALL, count_answer_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(tally_doc,
"Tally(block, (servers, cells), (pools, cells), (received, sent, us), (buckets, us), bounds)\n\n"
"A worker's block: where servers and pools begin and how many cells each has, cells of a server and of a pool, and the upper ends\n"
"of the buckets in seconds. It holds the buffer until it is deleted.");

static PyTypeObject tally_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "prefork_lb.native.tally.Tally",
    .tp_basicsize = sizeof(Tally),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = tally_doc,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)tally_init,
    .tp_dealloc = (destructor)tally_dealloc,
    .tp_methods = tally_methods,
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.tally", "Answers counted in C; see tally.c.", -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_tally(void) {
    if (PyType_Ready(&tally_type) < 0) return NULL;
    PyObject *module = PyModule_Create(&module_def);
    if (module && PyModule_AddObjectRef(module, "Tally", (PyObject *)&tally_type) < 0) Py_CLEAR(module);
    return module;
}
