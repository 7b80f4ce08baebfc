/* The next client of a listening socket (green/accepting.py). Included by loop.c alone. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

PyDoc_STRVAR(accept_doc,
"accept(listener) -> (descriptor, host, port) or None\n\n"
"Take a client of this listening descriptor. Its own one does not block. None: none waits. Host \"\" and port 0: not of IP.\n"
"Raises OSError as accept(2) does.");

static PyObject *accept_client(PyObject *Py_UNUSED(module), PyObject *listener) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } address;
    char host[NI_MAXHOST] = "";
    int from = PyLong_AsLong(listener), port = 0, descriptor;
    if (from == -1 && PyErr_Occurred()) return NULL;
    for (;;) {
        socklen_t length = sizeof address;
        descriptor = accept4(from, &address.any, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (descriptor >= 0) break;
        if (errno == EAGAIN || errno == EWOULDBLOCK) Py_RETURN_NONE;
        if (errno != EINTR) return PyErr_SetFromErrno(PyExc_OSError);
        if (PyErr_CheckSignals()) return NULL;
    }
    int failed = 0;
    if (address.any.sa_family == AF_INET) {
        port = ntohs(address.v4.sin_port);
        failed = !inet_ntop(AF_INET, &address.v4.sin_addr, host, sizeof host);
    } else if (address.any.sa_family == AF_INET6) { /* with its zone */
        port = ntohs(address.v6.sin6_port);
        failed = getnameinfo(&address.any, sizeof address.v6, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0;
    }
    PyObject *found = NULL;
    if (failed) PyErr_SetString(PyExc_OSError, "a client's address cannot be read");
    else found = Py_BuildValue("(isi)", descriptor, host, port);
    if (!found) close(descriptor);
    return found;
}
