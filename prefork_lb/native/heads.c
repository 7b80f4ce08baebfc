/* Parses the fields of a head into names, values and an index, and writes the fields that travel on as lines, in C.
 *
 * Optional. prefork_lb.wire.head and prefork_lb.wire.lines do the same in Python; both must give the same bytes, and the same tests
 * run over both. This code never reports an error of the peer: for a head that does not match the grammar or is beyond a limit it
 * returns None, and the Python code refuses it with the right message.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

/* RFC 9110 5.6.2 tchar, and 5.5 VCHAR, obs-text, SP and HTAB; wire/grammar.py has them as expressions. */
enum { TOKEN = 1, VALUE = 2 };
static unsigned char kinds[256];

static void fill_kinds(void) {
    for (int c = 0; c < 256; c++) kinds[c] = c == '\t' || (c >= 0x20 && c != 0x7f) ? VALUE : 0;
    for (const char *c = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; *c; c++)
        kinds[(unsigned char)*c] |= TOKEN;
}

/* Names repeat, so the objects of the latest names are kept: the name as it was written, and in lower case. */
enum { SLOTS = 512, LONGEST_NAME = 40 };
static struct {
    PyObject *name, *lower;
} names[SLOTS];

static PyObject *lower_case(const char *text, Py_ssize_t length) {
    PyObject *made = PyBytes_FromStringAndSize(NULL, length); /* NULL, not `text`: Python shares the objects of single bytes */
    if (!made) return NULL;
    char *bytes = PyBytes_AS_STRING(made);
    for (Py_ssize_t i = 0; i < length; i++) bytes[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 'a' - 'A') : text[i];
    return made;
}

/* New references to a name and its lower case; 0, or -1 with an exception. */
static int find_name(const char *text, Py_ssize_t length, uint32_t hash, PyObject **name, PyObject **lower) {
    PyObject *known = names[hash % SLOTS].name;
    if (known && PyBytes_GET_SIZE(known) == length && !memcmp(PyBytes_AS_STRING(known), text, (size_t)length)) {
        *name = Py_NewRef(known), *lower = Py_NewRef(names[hash % SLOTS].lower);
        return 0;
    }
    if (!(*name = PyBytes_FromStringAndSize(text, length))) return -1;
    if (!(*lower = lower_case(text, length))) {
        Py_CLEAR(*name);
        return -1;
    }
    if (length <= LONGEST_NAME) {
        Py_XSETREF(names[hash % SLOTS].name, Py_NewRef(*name));
        Py_XSETREF(names[hash % SLOTS].lower, Py_NewRef(*lower));
    }
    return 0;
}

/* Add one field to the list and the index. Returns 0, or -1 with an exception. */
static int add_field(PyObject *fields, PyObject *index, const char *text, Py_ssize_t length, uint32_t hash, const char *content,
                     Py_ssize_t size) {
    PyObject *name = NULL, *lower = NULL, *pair = NULL, *value = PyBytes_FromStringAndSize(content, size);
    int result = -1;
    if (value && !find_name(text, length, hash, &name, &lower) && (pair = PyTuple_Pack(2, name, value))) {
        PyObject *values = PyDict_GetItemWithError(index, lower);
        if (values) {
            result = PyList_Append(values, value);
        } else if (!PyErr_Occurred() && (values = PyList_New(1))) {
            PyList_SET_ITEM(values, 0, Py_NewRef(value));
            result = PyDict_SetItem(index, lower, values);
            Py_DECREF(values);
        }
        if (!result) result = PyList_Append(fields, pair);
    }
    Py_XDECREF(name);
    Py_XDECREF(lower);
    Py_XDECREF(pair);
    Py_XDECREF(value);
    return result;
}

PyDoc_STRVAR(read_fields_doc,
"read_fields(block, start, most_bytes, most_fields) -> (fields, index) or None\n\n"
"The fields of a head from `start` to the blank line that ends `block`, and their values by lower-case name. None for anything\n"
"that is not quite right, a line of more than `most_bytes`, or more than `most_fields` of them.");

static PyObject *read_fields(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 4 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "read_fields(block: bytes, start, most_bytes, most_fields)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), most_bytes = PyLong_AsSsize_t(args[2]), most_fields = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred()) return NULL;
    const char *at = PyBytes_AS_STRING(args[0]), *end = at + PyBytes_GET_SIZE(args[0]);
    if (start < 0 || end - at - start < 2 || end[-1] != '\n' || end[-2] != '\r') Py_RETURN_NONE;
    const char *done = at += start; /* all lines before this one are valid */
    end -= 2; /* the CRLF behind `end` stops every loop below, so none reads beyond the block */
    PyObject *fields = PyList_New(0), *index = PyDict_New(), *result = NULL;
    int good = fields && index;
    while (good && at < end) {
        const char *line = at;
        uint32_t hash = 2166136261u; /* FNV-1a */
        while (kinds[(unsigned char)*at] & TOKEN) hash = (hash ^ (unsigned char)*at++) * 16777619u;
        Py_ssize_t length = at - line;
        if (!length || *at != ':') break;
        for (at++; *at == ' ' || *at == '\t';) at++;
        const char *value = at;
        while (kinds[(unsigned char)*at] & VALUE) at++;
        if (at >= end || at[0] != '\r' || at[1] != '\n') break;
        const char *last = at;
        while (last > value && (last[-1] == ' ' || last[-1] == '\t')) last--;
        if (at - line > most_bytes || PyList_GET_SIZE(fields) >= most_fields) break;
        good = add_field(fields, index, line, length, hash, value, last - value) == 0;
        at += 2;
        done = at;
    }
    if (good) result = done == end ? PyTuple_Pack(2, fields, index) : Py_NewRef(Py_None);
    Py_XDECREF(fields);
    Py_XDECREF(index);
    return result;
}

/* The length of a field's line in bytes; 0 if the field holds an invalid byte or is not a pair of bytes objects. */
static Py_ssize_t line_length(PyObject *field) {
    if (!PyTuple_Check(field) || PyTuple_GET_SIZE(field) != 2) return 0;
    PyObject *name = PyTuple_GET_ITEM(field, 0), *value = PyTuple_GET_ITEM(field, 1);
    if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value)) return 0;
    Py_ssize_t name_bytes = PyBytes_GET_SIZE(name), value_bytes = PyBytes_GET_SIZE(value);
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(name);
    for (Py_ssize_t i = 0; i < name_bytes; i++)
        if (!(kinds[text[i]] & TOKEN)) return 0;
    text = (const unsigned char *)PyBytes_AS_STRING(value);
    for (Py_ssize_t i = 0; i < value_bytes; i++)
        if (!(kinds[text[i]] & VALUE)) return 0;
    return name_bytes ? name_bytes + value_bytes + 4 : 0;
}

PyDoc_STRVAR(join_fields_doc,
"join_fields(fields, travels) -> bytes or None\n\n"
"The lines of those fields for whose name (as it is written) the dict `travels` has True. None when a name is not in it, or a byte\n"
"is in any of the fields that no field may hold.");

static PyObject *join_fields(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyList_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "join_fields(fields: list, travels: dict)");
        return NULL;
    }
    /* The first pass adds up the lengths, the second copies. No Python code runs between them, so the list cannot change. */
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        PyObject *field = PyList_GET_ITEM(args[0], i);
        Py_ssize_t length = line_length(field);
        if (!length) Py_RETURN_NONE;
        PyObject *travels = PyDict_GetItemWithError(args[1], PyTuple_GET_ITEM(field, 0));
        if (!travels) {
            if (PyErr_Occurred()) return NULL;
            Py_RETURN_NONE;
        }
        if (travels == Py_True) total += length;
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    if (!joined) return NULL;
    char *to = PyBytes_AS_STRING(joined);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); i++) {
        PyObject *field = PyList_GET_ITEM(args[0], i), *name = PyTuple_GET_ITEM(field, 0), *value = PyTuple_GET_ITEM(field, 1);
        if (PyDict_GetItemWithError(args[1], name) != Py_True) continue;
        memcpy(to, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
        to += PyBytes_GET_SIZE(name);
        *to++ = ':', *to++ = ' ';
        memcpy(to, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value));
        to += PyBytes_GET_SIZE(value);
        *to++ = '\r', *to++ = '\n';
    }
    return joined;
}

static PyMethodDef methods[] = {
    {"read_fields", (PyCFunction)(void (*)(void))read_fields, METH_FASTCALL, read_fields_doc},
    {"join_fields", (PyCFunction)(void (*)(void))join_fields, METH_FASTCALL, join_fields_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.heads", "Fields in and out in C; see heads.c.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_heads(void) {
    fill_kinds();
    return PyModule_Create(&module_def);
}
