/* The fields of a head, found and not yet taken apart: what a head's bytes hold between its first line and the blank line.
 *
 * Most fields of most heads are of no interest here: they only travel on. So reading a head notes where its lines are, and a name or
 * a value becomes an object when somebody asks for it. Included by heads.c alone.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

/* RFC 9110 5.6.2 tchar, and 5.5 VCHAR, obs-text, SP and HTAB; RFC 3986 2: no URI holds other bytes than TARGET. wire/grammar.py has
 * them as expressions. */
enum { TOKEN = 1, VALUE = 2, TARGET = 4 };
static unsigned char kinds[256], lower[256];

static void fill_tables(void) {
    for (int c = 0; c < 256; c++) {
        kinds[c] = c == '\t' || (c >= 0x20 && c != 0x7f) ? VALUE : 0;
        if (c > 0x20 && c < 0x7f) kinds[c] |= TARGET;
        lower[c] = (unsigned char)(c >= 'A' && c <= 'Z' ? c + 'a' - 'A' : c);
    }
    for (const char *c = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"; *c; c++)
        kinds[(unsigned char)*c] |= TOKEN;
}

/* FNV-1a. */
static const uint32_t NO_HASH = 2166136261u;
static inline uint32_t add_to_hash(uint32_t hash, unsigned char byte) { return (hash ^ byte) * 16777619u; }

/* Names repeat, so the objects of the latest names are kept: the name as it was written, and in lower case. */
enum { SLOTS = 512, LONGEST_NAME = 40 };
static struct {
    PyObject *name, *lower;
} names[SLOTS];

static PyObject *lower_case(const char *text, Py_ssize_t length) {
    PyObject *made = PyBytes_FromStringAndSize(NULL, length); /* NULL, not `text`: Python shares the objects of single bytes */
    if (!made) return NULL;
    char *bytes = PyBytes_AS_STRING(made);
    for (Py_ssize_t i = 0; i < length; i++) bytes[i] = (char)lower[(unsigned char)text[i]];
    return made;
}

/* A new reference to a name, and if `in_lower_case` is not NULL to its lower case; 0, or -1 with an exception. `hash` is that of the
 * lower case. */
static int find_name(const char *text, Py_ssize_t length, uint32_t hash, PyObject **name, PyObject **in_lower_case) {
    PyObject *known = names[hash % SLOTS].name;
    if (known && PyBytes_GET_SIZE(known) == length && !memcmp(PyBytes_AS_STRING(known), text, (size_t)length)) {
        *name = Py_NewRef(known);
        if (in_lower_case) *in_lower_case = Py_NewRef(names[hash % SLOTS].lower);
        return 0;
    }
    PyObject *made;
    if (!(*name = PyBytes_FromStringAndSize(text, length))) return -1;
    if (!(made = lower_case(text, length))) {
        Py_CLEAR(*name);
        return -1;
    }
    if (length <= LONGEST_NAME) {
        Py_XSETREF(names[hash % SLOTS].name, Py_NewRef(*name));
        Py_XSETREF(names[hash % SLOTS].lower, Py_NewRef(made));
    }
    if (in_lower_case)
        *in_lower_case = made;
    else
        Py_DECREF(made);
    return 0;
}

/* One field: where its name and its value lie in the block, and the hash of the name in lower case. */
typedef struct {
    uint32_t name, name_bytes, value, value_bytes, hash;
} Line;

typedef struct {
    PyObject_VAR_HEAD
    PyObject *block;
    long long length;
    unsigned notable;
    Line lines[];
} Section;

/* wire/head.py, NOTABLE: a bit for each, from the lowest on. */
static const char *const notable[] = {"content-length", "transfer-encoding", "connection", "date", "via", "expect", "upgrade",
                                      "max-forwards"};
enum { NOTABLE = sizeof notable / sizeof *notable, CONTENT_LENGTH = 1, CONNECTION = 4 };
static struct {
    uint32_t hash;
    Py_ssize_t length;
} notable_keys[NOTABLE];
static unsigned char may_be_notable[256]; /* by the last byte of a name's hash */

static PyTypeObject SectionType;

enum { MOST_LINES = 10000 }; /* config.model: the most that `proxy.limits.fields` may say */
static Line found[MOST_LINES]; /* of the section that is being read: no Python code runs meanwhile */

static inline const char *bytes_of(Section *self) { return PyBytes_AS_STRING(self->block); }

static int is_named(Section *self, const Line *line, uint32_t hash, const char *name, Py_ssize_t length) {
    if (line->hash != hash || line->name_bytes != (uint32_t)length) return 0;
    const unsigned char *text = (const unsigned char *)bytes_of(self) + line->name;
    for (Py_ssize_t i = 0; i < length; i++)
        if (lower[text[i]] != (unsigned char)name[i]) return 0;
    return 1;
}

static uint32_t hash_of(const char *name, Py_ssize_t length) {
    uint32_t hash = NO_HASH;
    for (Py_ssize_t i = 0; i < length; i++) hash = add_to_hash(hash, (unsigned char)name[i]);
    return hash;
}

/* The first line of this name (in lower case) at or behind `from`; -1 if there is none. */
static Py_ssize_t find_line(Section *self, PyObject *name, Py_ssize_t from) {
    if (!PyBytes_Check(name)) return -1;
    const char *text = PyBytes_AS_STRING(name);
    Py_ssize_t length = PyBytes_GET_SIZE(name);
    uint32_t hash = hash_of(text, length);
    for (Py_ssize_t i = from; i < Py_SIZE(self); i++)
        if (is_named(self, &self->lines[i], hash, text, length)) return i;
    return -1;
}

static PyObject *value_of(Section *self, const Line *line) {
    return PyBytes_FromStringAndSize(bytes_of(self) + line->value, line->value_bytes);
}

/* A new list of the values under a name, from line `first` on. */
static PyObject *values_from(Section *self, PyObject *name, Py_ssize_t first) {
    PyObject *values = PyList_New(0);
    for (Py_ssize_t i = first; values && i >= 0; i = find_line(self, name, i + 1)) {
        PyObject *value = value_of(self, &self->lines[i]);
        if (!value || PyList_Append(values, value)) Py_CLEAR(values);
        Py_XDECREF(value);
    }
    return values;
}

static int section_contains(PyObject *self, PyObject *name) { return find_line((Section *)self, name, 0) >= 0; }

static PyObject *section_item(PyObject *self, PyObject *name) {
    Py_ssize_t first = find_line((Section *)self, name, 0);
    if (first >= 0) return values_from((Section *)self, name, first);
    PyErr_SetObject(PyExc_KeyError, name);
    return NULL;
}

PyDoc_STRVAR(get_doc, "get(name, default=None)\n\nThe values under a name, which is in lower case, in order; `default` if there are none.");

static PyObject *section_get(PyObject *self, PyObject *const *args, Py_ssize_t count) {
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "get(name, default=None)");
        return NULL;
    }
    Py_ssize_t first = find_line((Section *)self, args[0], 0);
    if (first >= 0) return values_from((Section *)self, args[0], first);
    return Py_NewRef(count == 2 ? args[1] : Py_None);
}

/* Visit the fields as objects: `fields` gets pairs, `index` values by name in lower case; either may be NULL. 0, or -1. */
static int add_all(Section *self, PyObject *fields, PyObject *index) {
    int result = 0;
    for (Py_ssize_t i = 0; !result && i < Py_SIZE(self); i++) {
        const Line *line = &self->lines[i];
        PyObject *name = NULL, *in_lower_case = NULL, *pair = NULL, *value = value_of(self, line);
        result = -1;
        if (value && !find_name(bytes_of(self) + line->name, line->name_bytes, line->hash, &name, &in_lower_case)) {
            result = 0;
            if (fields) result = (pair = PyTuple_Pack(2, name, value)) ? PyList_Append(fields, pair) : -1;
            if (index && !result) {
                PyObject *values = PyDict_GetItemWithError(index, in_lower_case);
                if (values) {
                    result = PyList_Append(values, value);
                } else if (PyErr_Occurred() || !(values = PyList_New(1))) {
                    result = -1;
                } else {
                    PyList_SET_ITEM(values, 0, Py_NewRef(value));
                    result = PyDict_SetItem(index, in_lower_case, values);
                    Py_DECREF(values);
                }
            }
        }
        Py_XDECREF(name);
        Py_XDECREF(in_lower_case);
        Py_XDECREF(pair);
        Py_XDECREF(value);
    }
    return result;
}

static PyObject *section_fields(PyObject *self, void *Py_UNUSED(closure)) {
    PyObject *fields = PyList_New(0);
    if (fields && add_all((Section *)self, fields, NULL)) Py_CLEAR(fields);
    return fields;
}

static PyObject *section_index(PyObject *self) {
    PyObject *index = PyDict_New();
    if (index && add_all((Section *)self, NULL, index)) Py_CLEAR(index);
    return index;
}

static PyObject *section_items(PyObject *self, PyObject *Py_UNUSED(ignored)) {
    PyObject *index = section_index(self), *items = index ? PyDict_Items(index) : NULL;
    Py_XDECREF(index);
    return items;
}

static PyObject *section_iter(PyObject *self) {
    PyObject *index = section_index(self), *names_left = index ? PyObject_GetIter(index) : NULL;
    Py_XDECREF(index);
    return names_left;
}

static Py_ssize_t section_length(PyObject *self) {
    PyObject *index = section_index(self);
    Py_ssize_t length = index ? PyDict_GET_SIZE(index) : -1;
    Py_XDECREF(index);
    return length;
}

PyDoc_STRVAR(join_doc,
"join(travels, before, behind) -> bytes or None\n\n"
"The lines of those fields for whose name (as it is written) the dict `travels` has True, between two other pieces; None when a\n"
"name is not in it.");

static PyObject *section_join(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Section *self = (Section *)object;
    if (count != 3 || !PyDict_Check(args[0]) || !PyBytes_Check(args[1]) || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "join(travels: dict, before: bytes, behind: bytes)");
        return NULL;
    }
    Py_ssize_t before = PyBytes_GET_SIZE(args[1]), behind = PyBytes_GET_SIZE(args[2]);
    /* A line that came without the blank behind its colon grows by one byte. */
    PyObject *joined = PyBytes_FromStringAndSize(NULL, before + PyBytes_GET_SIZE(self->block) + Py_SIZE(self) + behind);
    if (!joined) return NULL;
    char *to = PyBytes_AS_STRING(joined);
    memcpy(to, PyBytes_AS_STRING(args[1]), (size_t)before);
    to += before;
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        const Line *line = &self->lines[i];
        PyObject *name;
        if (find_name(bytes_of(self) + line->name, line->name_bytes, line->hash, &name, NULL)) goto failed;
        PyObject *verdict = PyDict_GetItemWithError(args[0], name);
        Py_DECREF(name);
        if (!verdict) {
            if (PyErr_Occurred()) goto failed;
            Py_DECREF(joined);
            Py_RETURN_NONE;
        }
        if (verdict != Py_True) continue;
        memcpy(to, bytes_of(self) + line->name, line->name_bytes);
        to += line->name_bytes;
        *to++ = ':', *to++ = ' ';
        memcpy(to, bytes_of(self) + line->value, line->value_bytes);
        to += line->value_bytes;
        *to++ = '\r', *to++ = '\n';
    }
    memcpy(to, PyBytes_AS_STRING(args[2]), (size_t)behind);
    to += behind;
    _PyBytes_Resize(&joined, to - PyBytes_AS_STRING(joined));
    return joined;
failed:
    Py_DECREF(joined);
    return NULL;
}

/* 1 if a name (in lower case) is one of `names`; 0, or -1 with an exception. */
static int is_among(PyObject *name, PyObject *names, int either_spelling) {
    if (!either_spelling || !memchr(PyBytes_AS_STRING(name), '_', (size_t)PyBytes_GET_SIZE(name))) return PySet_Contains(names, name);
    PyObject *spelled = lower_case(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name));
    if (!spelled) return -1;
    for (char *at = PyBytes_AS_STRING(spelled); *at; at++) /* no name has a NUL */
        if (*at == '_') *at = '-';
    int result = PySet_Contains(names, spelled);
    Py_DECREF(spelled);
    return result;
}

static int is_line_among(Section *self, const Line *line, PyObject *names, int either_spelling) {
    PyObject *name, *in_lower_case;
    if (find_name(bytes_of(self) + line->name, line->name_bytes, line->hash, &name, &in_lower_case)) return -1;
    int result = is_among(in_lower_case, names, either_spelling);
    Py_DECREF(name);
    Py_DECREF(in_lower_case);
    return result;
}

static void note(Section *self);

PyDoc_STRVAR(without_doc,
"without(names, either_spelling) -> section\n\n"
"The section without the fields of these names, a frozenset of names in lower case; itself, when it has none of them.\n"
"`either_spelling`: an underscore in a field's name counts as a hyphen.");

/* A bit for each of the names, by its hash: most lines have none of these bits, and are none of the names. 0 with an exception. */
static uint64_t bits_of(PyObject *names) {
    uint64_t bits = 0;
    PyObject *name, *left = PyObject_GetIter(names);
    while (left && (name = PyIter_Next(left))) {
        if (PyBytes_Check(name)) bits |= (uint64_t)1 << hash_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)) % 64;
        Py_DECREF(name);
    }
    Py_XDECREF(left);
    return bits;
}

static PyObject *section_without(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    Section *self = (Section *)object;
    if (count != 2 || !PyFrozenSet_Check(args[0]) || !PyBool_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "without(names: frozenset, either_spelling: bool)");
        return NULL;
    }
    int either_spelling = args[1] == Py_True;
    uint64_t bits = bits_of(args[0]);
    if (PyErr_Occurred()) return NULL;
    Section *left = NULL; /* NULL as long as all fields stay */
    Py_ssize_t stay = 0;
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        const Line *line = &self->lines[i];
        int may_go = bits >> line->hash % 64 & 1 || (either_spelling && memchr(bytes_of(self) + line->name, '_', line->name_bytes));
        int goes = may_go ? is_line_among(self, line, args[0], either_spelling) : 0;
        if (goes > 0 && !left) {
            if (!(left = PyObject_NewVar(Section, &SectionType, Py_SIZE(self) - 1))) return NULL;
            left->block = Py_NewRef(self->block);
            memcpy(left->lines, self->lines, (size_t)i * sizeof(Line));
            stay = i;
        } else if (goes < 0) {
            Py_XDECREF(left);
            return NULL;
        } else if (!goes && left) {
            left->lines[stay++] = *line;
        }
    }
    if (!left) return Py_NewRef(object);
    Py_SET_SIZE(left, stay);
    note(left);
    return (PyObject *)left;
}

static PyObject *section_compare(PyObject *self, PyObject *other, int operator) {
    if (operator != Py_EQ && operator != Py_NE) Py_RETURN_NOTIMPLEMENTED;
    PyObject *left = section_index(self), *right = NULL, *result = NULL;
    right = Py_IS_TYPE(other, &SectionType) ? section_index(other) : Py_NewRef(other);
    if (left && right) result = PyObject_RichCompare(left, right, operator);
    Py_XDECREF(left);
    Py_XDECREF(right);
    return result;
}

static void section_dealloc(PyObject *object) {
    Section *self = (Section *)object;
    Py_XDECREF(self->block);
    PyObject_Free(self);
}

static PyMethodDef section_methods[] = {
    {"get", (PyCFunction)(void (*)(void))section_get, METH_FASTCALL, get_doc},
    {"items", section_items, METH_NOARGS, "All names in lower case, each with its values."},
    {"without", (PyCFunction)(void (*)(void))section_without, METH_FASTCALL, without_doc},
    {"join", (PyCFunction)(void (*)(void))section_join, METH_FASTCALL, join_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef section_members[] = {
    {"notable", T_UINT, offsetof(Section, notable), READONLY, "Which of wire.head.NOTABLE it has, as bits."},
    {"length", T_LONGLONG, offsetof(Section, length), READONLY, "The one Content-Length; -1: none, several, or no number."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef section_properties[] = {
    {"fields", section_fields, NULL, "Names as they came, and values without surrounding blanks, in order: a new list.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PySequenceMethods section_sequence = {.sq_contains = section_contains};
static PyMappingMethods section_mapping = {.mp_length = section_length, .mp_subscript = section_item};

static PyTypeObject SectionType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "prefork_lb.native.heads.Section",
    .tp_doc = "The fields of a head: a mapping of names in lower case to values, and more.",
    .tp_basicsize = offsetof(Section, lines),
    .tp_itemsize = sizeof(Line),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = section_dealloc,
    .tp_richcompare = section_compare,
    .tp_hash = PyObject_HashNotImplemented,
    .tp_iter = section_iter,
    .tp_as_sequence = &section_sequence,
    .tp_as_mapping = &section_mapping,
    .tp_methods = section_methods,
    .tp_members = section_members,
    .tp_getset = section_properties,
};

static void hash_notable(void) {
    for (int i = 0; i < NOTABLE; i++) {
        notable_keys[i].length = (Py_ssize_t)strlen(notable[i]);
        notable_keys[i].hash = hash_of(notable[i], notable_keys[i].length);
        may_be_notable[notable_keys[i].hash & 255] = 1;
    }
}

/* The bit of a line's name; 0 if it has none. */
static unsigned bit_of(Section *self, const Line *line) {
    if (!may_be_notable[line->hash & 255]) return 0;
    for (int i = 0; i < NOTABLE; i++)
        if (is_named(self, line, notable_keys[i].hash, notable[i], notable_keys[i].length)) return 1u << i;
    return 0;
}

enum { MOST_DIGITS = 18 }; /* wire/head.py has the same; they stay below 2^63 */

static long long number_in(const char *text, Py_ssize_t length) {
    if (length < 1 || length > MOST_DIGITS) return -1;
    long long number = 0;
    for (Py_ssize_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return -1;
        number = 10 * number + text[i] - '0';
    }
    return number;
}

/* Note what matters most of a new section. */
static void note(Section *self) {
    self->notable = 0, self->length = -1;
    for (Py_ssize_t i = 0; i < Py_SIZE(self); i++) {
        const Line *line = &self->lines[i];
        unsigned bit = bit_of(self, line);
        if (bit == CONTENT_LENGTH)
            self->length = self->notable & bit ? -1 : number_in(bytes_of(self) + line->value, line->value_bytes);
        self->notable |= bit;
    }
}

/* The fields of `block` from `start` to the blank line at its end. NULL without an exception if Python must read them. */
static Section *read_lines(PyObject *block, Py_ssize_t start, Py_ssize_t most_bytes, Py_ssize_t most_fields) {
    const char *begin = PyBytes_AS_STRING(block), *at = begin + start, *end = begin + PyBytes_GET_SIZE(block);
    if (end - at < 2 || end[-1] != '\n' || end[-2] != '\r' || end - begin > UINT32_MAX) return NULL;
    end -= 2; /* the CRLF behind `end` stops every loop below, so none reads beyond the block */
    if (most_fields > MOST_LINES) most_fields = MOST_LINES;
    Py_ssize_t count = 0;
    while (at < end) {
        const char *line = at;
        uint32_t hash = NO_HASH;
        for (; kinds[(unsigned char)*at] & TOKEN; at++) hash = add_to_hash(hash, lower[(unsigned char)*at]);
        Py_ssize_t length = at - line;
        if (!length || *at != ':') return NULL;
        for (at++; *at == ' ' || *at == '\t';) at++;
        const char *value = at;
        while (kinds[(unsigned char)*at] & VALUE) at++;
        if (at >= end || at[0] != '\r' || at[1] != '\n') return NULL;
        const char *last = at;
        while (last > value && (last[-1] == ' ' || last[-1] == '\t')) last--;
        if (at - line > most_bytes || count >= most_fields) return NULL;
        found[count++] = (Line){(uint32_t)(line - begin), (uint32_t)length, (uint32_t)(value - begin), (uint32_t)(last - value), hash};
        at += 2;
    }
    if (at != end) return NULL;
    Section *self = PyObject_NewVar(Section, &SectionType, count);
    if (!self) return NULL;
    self->block = Py_NewRef(block);
    memcpy(self->lines, found, (size_t)count * sizeof(Line));
    note(self);
    return self;
}
