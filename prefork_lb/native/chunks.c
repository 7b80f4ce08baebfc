/* Joins the data of many small chunks, in C (RFC 9112 7.1).
 *
 * Optional. prefork_lb.wire.chunked does the same in Python; both must give the same bytes, and the same tests run over both.
 * This code takes only whole chunks without extensions. At anything else (the last chunk, an incomplete chunk, an invalid byte)
 * it stops, and the Python code continues there.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

/* Sizes with more digits are refused (wire/grammar.py, chunk_size). 15 digits stay below 2^60, so the sums here cannot overflow. */
enum { MOST_DIGITS = 15 };

static int hex_value(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Where the data of the chunk at `at` begins, and its size; NULL when no whole chunk without extensions begins there. */
static const char *open_chunk(const char *at, const char *end, Py_ssize_t *size) {
    const char *start = at;
    int64_t value = 0;
    int next;
    while (at < end && at - start < MOST_DIGITS && (next = hex_value((unsigned char)*at)) >= 0) value = value * 16 + next, at++;
    /* A sixteenth digit fails here too: it is not CR. */
    if (at == start || !value || end - at < 4 || at[0] != '\r' || at[1] != '\n') return NULL;
    at += 2;
    if (value > end - at - 2 || at[value] != '\r' || at[value + 1] != '\n') return NULL;
    *size = (Py_ssize_t)value;
    return at;
}

PyDoc_STRVAR(join_chunks_doc,
"join_chunks(data, position) -> (content, position)\n\n"
"The content of the whole chunks without extensions that follow one another from `position` on, and where they end.");

static PyObject *join_chunks(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "join_chunks(data: bytes, position)");
        return NULL;
    }
    Py_ssize_t position = PyLong_AsSsize_t(args[1]), size, total = 0;
    if (position == -1 && PyErr_Occurred()) return NULL;
    if (position < 0 || position > PyBytes_GET_SIZE(args[0])) {
        PyErr_SetString(PyExc_ValueError, "join_chunks: the position is outside of the data");
        return NULL;
    }
    const char *first = PyBytes_AS_STRING(args[0]) + position, *end = PyBytes_AS_STRING(args[0]) + PyBytes_GET_SIZE(args[0]);
    const char *at = first, *content;
    /* The first pass adds up the sizes, the second copies. That is cheaper than to allocate the largest possible result. */
    while ((content = open_chunk(at, end, &size))) total += size, at = content + size + 2;
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    if (!joined) return NULL;
    char *to = PyBytes_AS_STRING(joined);
    const char *stop = at;
    for (at = first; at < stop; at = content + size + 2) {
        content = open_chunk(at, end, &size);
        memcpy(to, content, (size_t)size);
        to += size;
    }
    return Py_BuildValue("Nn", joined, position + (stop - first));
}

static PyMethodDef methods[] = {
    {"join_chunks", (PyCFunction)(void (*)(void))join_chunks, METH_FASTCALL, join_chunks_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.chunks", "Small chunks joined in C; see chunks.c.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_chunks(void) { return PyModule_Create(&module_def); }
