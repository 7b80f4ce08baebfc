/* Reads heads, and writes the fields that travel on as lines, in C.
 *
 * Optional. prefork_lb.wire.head and prefork_lb.wire.field_lines do the same in Python; both must give the same bytes, and the same tests
 * run over both. This code never reports an error of the peer: for a head that does not match the grammar or is beyond a limit it
 * returns None, and the Python code refuses it with the right message.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "section.h"

static int take_arguments(PyObject *const *args, Py_ssize_t count, const char *signature, Py_ssize_t *most_bytes,
                          Py_ssize_t *most_fields) {
    if (count != 3 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, signature);
        return -1;
    }
    *most_bytes = PyLong_AsSsize_t(args[1]), *most_fields = PyLong_AsSsize_t(args[2]);
    return PyErr_Occurred() ? -1 : 0;
}

/* The minor version if "HTTP/1." and a digit stand at `at`, of which there are `left` bytes; -1 otherwise. RFC 9110 2.5: a minor
 * version that we do not know is read as the highest one that we do. */
static int minor_version(const char *at, Py_ssize_t left) {
    if (left < 8 || memcmp(at, "HTTP/1.", 7) || at[7] < '0' || at[7] > '9') return -1;
    return at[7] != '0';
}

/* The classes of heads in Python, and where their slots lie in an object. Their `__init__` does the same. */
enum { FIRST, SECOND, MINOR, SECTION, INDEX, KEPT, LAST, PERSISTENT, PARTS };
typedef struct {
    PyTypeObject *type; /* NULL until `use` was called */
    const char *const *slots;
    Py_ssize_t offsets[PARTS];
} HeadClass;
static const char *const request_slots[PARTS] = {"method", "target", "minor", "section", "index", "kept", "is_parsed", "is_persistent"};
static const char *const response_slots[PARTS] = {"status", "reason", "minor", "section", "index", "kept", "framing", "is_persistent"};
static HeadClass requests = {.slots = request_slots}, responses = {.slots = response_slots};

static int use_class(HeadClass *self, PyObject *type) {
    for (int i = 0; i < PARTS; i++) {
        PyObject *slot = PyObject_GetAttrString(type, self->slots[i]);
        if (!slot) return -1;
        int is_slot = Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX;
        if (is_slot) self->offsets[i] = ((PyMemberDescrObject *)slot)->d_member->offset;
        Py_DECREF(slot);
        if (!is_slot) {
            PyErr_Format(PyExc_TypeError, "use: %s is no slot", self->slots[i]);
            return -1;
        }
    }
    Py_XSETREF(self->type, (PyTypeObject *)Py_NewRef(type));
    return 0;
}

PyDoc_STRVAR(use_doc, "use(request_head, response_head)\n\nThe classes of the heads that are read; they have slots, and no subclasses.");

static PyObject *use(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyType_Check(args[0]) || !PyType_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "use(request_head: type, response_head: type)");
        return NULL;
    }
    if (use_class(&requests, args[0]) || use_class(&responses, args[1])) return NULL;
    Py_RETURN_NONE;
}

static void set_part(PyObject *head, const HeadClass *of, int part, PyObject *value) {
    *(PyObject **)((char *)head + of->offsets[part]) = value;
}

/* A head of these parts, whose new references are taken over; NULL with an exception, also if one of the first two is NULL. It has
 * no `is_persistent` if it has Connection. */
static PyObject *head_of(const HeadClass *of, PyObject *first, PyObject *second, int minor, Section *section, PyObject *last) {
    PyObject *head = NULL;
    if (!of->type)
        PyErr_SetString(PyExc_RuntimeError, "use() comes first");
    else if (first && second)
        head = of->type->tp_alloc(of->type, 0);
    if (!head) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_DECREF(section);
        return NULL;
    }
    set_part(head, of, FIRST, first);
    set_part(head, of, SECOND, second);
    set_part(head, of, MINOR, PyLong_FromLong(minor)); /* 0 and 1 are there already */
    set_part(head, of, SECTION, (PyObject *)section);
    set_part(head, of, INDEX, Py_NewRef(section));
    set_part(head, of, KEPT, Py_NewRef(Py_None));
    set_part(head, of, LAST, Py_NewRef(last));
    if (!(section->notable & CONNECTION)) set_part(head, of, PERSISTENT, PyBool_FromLong(minor)); /* RFC 9112 9.3 */
    return head;
}

PyDoc_STRVAR(read_request_doc,
"read_request(block, most_bytes, most_fields) -> head or None\n\n"
"A whole request head, the blank line included. None for anything that is not quite right, a line of more than `most_bytes`, or\n"
"more than `most_fields` fields. The head has no `is_persistent` yet if it has Connection.");

static PyObject *read_request(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t most_bytes, most_fields;
    if (take_arguments(args, count, "read_request(block: bytes, most_bytes, most_fields)", &most_bytes, &most_fields)) return NULL;
    /* A bytes object has a NUL behind its last byte, which stops every loop. */
    const char *begin = PyBytes_AS_STRING(args[0]), *end = begin + PyBytes_GET_SIZE(args[0]), *at = begin;
    uint32_t hash = NO_HASH;
    for (; kinds[(unsigned char)*at] & TOKEN; at++) hash = add_to_hash(hash, lower[(unsigned char)*at]);
    Py_ssize_t method_bytes = at - begin;
    if (!method_bytes || *at != ' ') Py_RETURN_NONE;
    const char *target = ++at;
    while (kinds[(unsigned char)*at] & TARGET) at++;
    Py_ssize_t target_bytes = at - target;
    if (!target_bytes || *at != ' ') Py_RETURN_NONE;
    at++;
    int minor = minor_version(at, end - at);
    if (minor < 0 || end - at < 10 || at[8] != '\r' || at[9] != '\n' || at + 8 - begin > most_bytes) Py_RETURN_NONE;
    Section *section = read_lines(args[0], at + 10 - begin, most_bytes, most_fields);
    if (!section) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *method = NULL;
    if (find_name(begin, method_bytes, hash, &method, NULL)) method = NULL;
    return head_of(&requests, method, PyBytes_FromStringAndSize(target, target_bytes), minor, section, Py_True);
}

PyDoc_STRVAR(read_response_doc,
"read_response(block, most_bytes, most_fields) -> head or None\n\n"
"A whole response head; None as `read_request`, and when the status line has no reason phrase.");

static PyObject *read_response(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t most_bytes, most_fields;
    if (take_arguments(args, count, "read_response(block: bytes, most_bytes, most_fields)", &most_bytes, &most_fields)) return NULL;
    const char *begin = PyBytes_AS_STRING(args[0]), *end = begin + PyBytes_GET_SIZE(args[0]), *at = begin;
    int minor = minor_version(at, end - at);
    if (minor < 0 || end - at < 15) Py_RETURN_NONE; /* "HTTP/1.1 200 " and CRLF */
    at += 8;
    if (at[0] != ' ' || at[1] < '1' || at[1] > '9' || at[2] < '0' || at[2] > '9' || at[3] < '0' || at[3] > '9' || at[4] != ' ')
        Py_RETURN_NONE;
    long status = (at[1] - '0') * 100 + (at[2] - '0') * 10 + (at[3] - '0');
    const char *reason = at += 5;
    while (kinds[(unsigned char)*at] & VALUE) at++;
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n') Py_RETURN_NONE;
    Section *section = read_lines(args[0], at + 2 - begin, most_bytes, most_fields);
    if (!section) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    return head_of(&responses, PyLong_FromLong(status), PyBytes_FromStringAndSize(reason, at - reason), minor, section, Py_None);
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

PyDoc_STRVAR(plain_path_doc,
"plain_path(target) -> int\n\n"
"The length of a target's path if that is its own normal form and nothing in it is read in different ways; else -1.");

static PyObject *plain_path(PyObject *Py_UNUSED(module), PyObject *target) {
    if (!PyBytes_Check(target)) {
        PyErr_SetString(PyExc_TypeError, "plain_path(target: bytes)");
        return NULL;
    }
    const char *begin = PyBytes_AS_STRING(target), *end = begin + PyBytes_GET_SIZE(target), *at = begin;
    if (*at != '/') return PyLong_FromLong(-1);
    for (; at < end && *at != '?'; at++) {
        char next = at[1]; /* the NUL at the end, at worst */
        if (*at == '%' || *at == ';' || *at == '\\' || (*at == '/' && (next == '/' || next == '.' || next == '(')))
            return PyLong_FromLong(-1);
    }
    return PyLong_FromSsize_t(at - begin);
}

static PyMethodDef methods[] = {
    {"read_request", (PyCFunction)(void (*)(void))read_request, METH_FASTCALL, read_request_doc},
    {"read_response", (PyCFunction)(void (*)(void))read_response, METH_FASTCALL, read_response_doc},
    {"use", (PyCFunction)(void (*)(void))use, METH_FASTCALL, use_doc},
    {"plain_path", plain_path, METH_O, plain_path_doc},
    {"join_fields", (PyCFunction)(void (*)(void))join_fields, METH_FASTCALL, join_fields_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "prefork_lb.native.heads", "Heads in C; see heads.c.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_heads(void) {
    fill_tables();
    hash_notable();
    if (PyType_Ready(&SectionType)) return NULL;
    PyObject *module = PyModule_Create(&module_def);
    if (module && PyModule_AddObjectRef(module, "Section", (PyObject *)&SectionType)) Py_CLEAR(module);
    return module;
}
