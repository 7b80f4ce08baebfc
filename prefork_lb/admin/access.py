"""Who may do what: hosts, origins, tokens, sessions of browsers.

A page anywhere on the web can make the operator's browser send requests to a listener on the operator's own machine. Three
rules stop it. The name in Host must be ours, so a page whose name was pointed at this address (DNS rebinding) gets nothing. A
change that comes from another origin is refused, as browsers tell it. And a browser's change carries a value that only our own
page can have read.
"""
from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeTimedSerializer

from prefork_lb.admin.answers import Problem
from prefork_lb.admin.requests import AdminRequest, Caller
from prefork_lb.config.admin import AdminConfig
from prefork_lb.config.tokens import Token, read_tokens

COOKIE = "prefork_lb_admin"
SESSION_S = 12 * 3600
READS = ("GET", "HEAD")
_LOCAL = "local"

log = logging.getLogger("prefork_lb")


class TokenFile:
    """The tokens of a file, read again when it has changed. One that went bad leaves the tokens before in force."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: object = None
        self._tokens: Sequence[Token] = ()

    def tokens(self) -> Sequence[Token]:
        """The tokens of this moment."""
        try:
            status = os.stat(self._path)
            seen: object = status.st_ino, status.st_size, status.st_mtime_ns
        except OSError as exc:
            seen = exc.errno
        if seen != self._seen:
            self._seen = seen
            try:
                self._tokens = read_tokens(self._path)
            except ValueError as exc:
                log.error("admin.token_file: %s; the tokens of before stay in force", exc)
        return self._tokens


class Access:
    """Looks at each request before its endpoint does."""

    def __init__(self, admin: AdminConfig, secret: bytes) -> None:
        """`secret` are random bytes of the instance."""
        self._file = TokenFile(admin.token_file) if admin.token_file else None
        self._hosts = _Hosts(admin)
        self._key = hashlib.sha256(secret + b"admin").digest()
        self._sessions = URLSafeTimedSerializer(self._key, salt="admin session")

    def check_place(self, request: AdminRequest) -> None:
        """Refuse a request by a foreign name, or that a page of another origin makes. Raises Problem."""
        host = request.environ.get("HTTP_HOST", "")
        if not self._hosts.has(host):
            raise Problem(421, f"the Host {host[:100]!r} is not of this listener; names besides its address go into admin.hosts")
        site = request.headers.get("Sec-Fetch-Site", "none")
        is_visit = request.method in READS and request.headers.get("Sec-Fetch-Mode") == "navigate"
        if site not in ("same-origin", "none") and not is_visit:
            raise Problem(403, f"the request comes from a page of another origin ({site[:20]})")
        if request.method not in READS and not _is_own(request.headers.get("Origin"), host):
            raise Problem(403, "the request comes from a page of another origin")

    def caller(self, request: AdminRequest) -> Caller | None:
        """Who makes the request; None without a token or a session that is right."""
        if self._file is None:
            return Caller("operator", _LOCAL, self._csrf(_LOCAL))
        kind, _, presented = request.headers.get("Authorization", "").partition(" ")
        if kind:
            token = self._token(self._mark(presented.strip().encode("latin-1", "replace"))) if kind.lower() == "bearer" else None
            return Caller(token.role, token.name, self._csrf(token.name)) if token is not None else None
        cookie = request.cookies.get(COOKIE, "")
        try:
            token = self._token(str(self._sessions.loads(cookie, max_age=SESSION_S))) if cookie else None
        except BadData:
            token = None
        return Caller(token.role, token.name, self._csrf(cookie)) if token is not None else None

    def check_change(self, request: AdminRequest, caller: Caller) -> None:
        """Refuse a browser's change without the value that only our page knows. Raises Problem."""
        if "Authorization" in request.headers:
            return  # no page of another origin can make a browser send this field
        if "Origin" not in request.headers and "Cookie" not in request.headers:
            return
        if not hmac.compare_digest(request.headers.get("X-CSRF-Token", "").encode("latin-1", "replace"), caller.csrf.encode()):
            raise Problem(403, "X-CSRF-Token is missing or wrong; GET /api/v1/session tells it")

    def session_for(self, presented: str) -> tuple[Caller, str] | None:
        """The caller with this token, and the cookie of a new session; None when there is no such token."""
        if self._file is None:
            return None
        mark = self._mark(presented.encode("utf-8", "replace"))
        token = self._token(mark)
        if token is None:
            return None
        cookie = str(self._sessions.dumps(mark))
        return Caller(token.role, token.name, self._csrf(cookie)), cookie

    def _token(self, mark: str) -> Token | None:
        """The token with this mark. Takes as long whichever it is, and if it is none."""
        found = None
        for token in self._file.tokens() if self._file is not None else ():
            if hmac.compare_digest(self._mark(token.secret), mark):
                found = token
        return found

    def _mark(self, secret: bytes) -> str:
        """What stands for a token in sessions: a token that is taken out of the file ends its sessions."""
        return self._keyed(b"token", secret)

    def _csrf(self, session: str) -> str:
        return self._keyed(b"csrf", session.encode())

    def _keyed(self, purpose: bytes, value: bytes) -> str:
        return hmac.new(self._key, purpose + b"\n" + value, hashlib.sha256).hexdigest()


class _Hosts:
    """The names by which a listener may be called."""

    def __init__(self, admin: AdminConfig) -> None:
        address = admin.address
        ip = _ip(address.host)
        self._names = {"localhost", address.host, *(host.lower().strip("[]").removesuffix(".") for host in admin.hosts)}
        # A page's name never is an address of ours, so any address will do where the listener has several.
        self._any_ip = ip is not None and ip.is_unspecified
        self._loopback = address.is_unix or address.host == "localhost" or ip is not None and ip.is_loopback

    def has(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        if not name or any(char in host for char in "/@?#, \\"):
            return False
        ip = _ip(name)
        if ip is None:
            return name in self._names
        return self._any_ip or self._loopback and ip.is_loopback or str(ip) in self._names


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_own(origin: str | None, host: str) -> bool:
    """Whether a page at `origin` was served by this listener, which was called `host`; also when no page is told."""
    return origin is None or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
