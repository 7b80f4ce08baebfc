/* The count of a request against a limit of a rate (shared/rate_table.py): included by claims.c, whose Claims it needs. */

typedef struct {
    PyObject_HEAD
    Claims *claims;
    Py_ssize_t first; /* the table's cell in the segment */
    int64_t sets, in_set;
} Rates;

typedef struct {
    int64_t key, due;
} Entry; /* shared/layout.py: RATE_CELLS */

enum { TAKE_ARGUMENTS = 4 };
/* Instants and times below this have sums that fit into 64 bits. */
static const int64_t MOST_NS = (int64_t)1 << 61;

static int rates_fill(Rates *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"claims", "first", "sets", "in_set", NULL};
    PyObject *claims;
    Py_ssize_t first, sets, in_set;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!nnn", names, claims_type, &claims, &first, &sets, &in_set)) return -1;
    self->claims = (Claims *)Py_NewRef(claims);
    Py_ssize_t entries = self->claims->memory.len / (Py_ssize_t)sizeof(Entry);
    if (first < 0 || sets < 1 || in_set < 1 || sets > entries / in_set || first > 2 * (entries - sets * in_set)) {
        PyErr_Format(PyExc_ValueError, "no room for %zd sets of %zd keys at cell %zd", sets, in_set, first);
        return -1;
    }
    self->first = first, self->sets = sets, self->in_set = in_set;
    return 0;
}

static PyObject *rates_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Rates *self = (Rates *)type->tp_alloc(type, 0);
    if (self && rates_fill(self, args, kwargs) < 0) Py_CLEAR(self);
    return (PyObject *)self;
}

/* No tp_clear, as of the Picker. */
static int rates_traverse(Rates *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->claims);
    return 0;
}

static void rates_dealloc(Rates *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->claims);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The lock must be held. How long the key has to wait; -1, and nothing was done, when Python must count. */
static int64_t count_use(Rates *self, int64_t key, int64_t interval, int64_t ahead, int64_t now) {
    int64_t set = key % self->sets;
    if (set < 0) set += self->sets;
    volatile Entry *entries = (volatile Entry *)(cells_of(&self->claims->memory) + self->first) + set * self->in_set;
    volatile Entry *entry = entries;
    int64_t place = 0;
    while (place < self->in_set && entries[place].key != key) place++;
    int64_t due = now;
    if (place < self->in_set) {
        entry = &entries[place];
        if (entry->due > now) due = entry->due;
    } else {
        for (place = 1; place < self->in_set; place++)
            if (entries[place].due < entry->due) entry = &entries[place];
        entry->due = 0; /* a kill between the two leaves an entry that no key is ahead of */
        entry->key = key;
    }
    if (due - now > ahead) return due - now - ahead;
    if (due > MOST_NS) return -1;
    entry->due = due + interval;
    return 0;
}

PyDoc_STRVAR(take_doc,
"take(key, interval_ns, ahead_ns, now_ns) -> int\n\n"
"As RateTable.take. -1, and nothing was done, when the lock was not to be had at once or a number is too large.");

static PyObject *rates_take(Rates *self, PyObject *const *args, Py_ssize_t count) {
    if (count != TAKE_ARGUMENTS) {
        PyErr_SetString(PyExc_TypeError, "take(key, interval_ns, ahead_ns, now_ns)");
        return NULL;
    }
    int64_t numbers[TAKE_ARGUMENTS];
    for (int i = 0; i < TAKE_ARGUMENTS; i++) {
        int is_beyond;
        numbers[i] = PyLong_AsLongLongAndOverflow(args[i], &is_beyond);
        if (numbers[i] == -1 && PyErr_Occurred()) return NULL;
        if (is_beyond || (i > 0 && (numbers[i] < 0 || numbers[i] > MOST_NS))) return PyLong_FromLong(-1);
    }
    int entered = enter(self->claims);
    if (entered < 0) return NULL;
    if (!entered) return PyLong_FromLong(-1);
    int64_t wait = count_use(self, numbers[0], numbers[1], numbers[2], numbers[3]);
    if (leave(self->claims) < 0) return NULL;
    return PyLong_FromLongLong(wait);
}

static PyMethodDef rates_methods[] = {
    {"take", (PyCFunction)(void (*)(void))rates_take, METH_FASTCALL, take_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot rates_slots[] = {
    {Py_tp_doc, "Rates(claims, first, sets, in_set)\n\n"
                "Limits of a rate: a table of so many sets of entries, which begins at the cell `first` of the segment."},
    {Py_tp_new, rates_new},
    {Py_tp_traverse, rates_traverse},
    {Py_tp_dealloc, rates_dealloc},
    {Py_tp_methods, rates_methods},
    {0, NULL},
};
static PyType_Spec rates_spec = {
    "prefork_lb.native.claims.Rates", sizeof(Rates), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, rates_slots,
};
