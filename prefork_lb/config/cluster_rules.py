"""What cannot work in `[cluster]`."""
from __future__ import annotations

import importlib.util
from urllib.parse import urlsplit

from prefork_lb.config.cluster import ClusterConfig
from prefork_lb.config.decode import ReportProblem
from prefork_lb.config.secrets import read_secrets
from prefork_lb.errors import shown
from prefork_lb.net.address import parse_address


def check_cluster(cluster: ClusterConfig, report: ReportProblem) -> None:
    """Report what cannot work in the section."""
    if cluster.url is not None and (problem := _url_problem(cluster)):
        report(("cluster", "url"), problem)
    if importlib.util.find_spec("redis") is None:
        report(("cluster",), "redis-py is not installed, which this section needs: pip install prefork-lb[cluster]")
    if cluster.kind == "sentinel" and cluster.service == "":
        report(("cluster", "service"), "missing; sentinels are asked for a primary by its name")
    for index, sentinel in enumerate(cluster.sentinels or ()):
        if sentinel is not None and not _is_host_and_port(sentinel):
            report(("cluster", "sentinels", index), f'{shown(sentinel)} is no sentinel; expected "HOST:PORT"')
    if cluster.kind in ("single", "cluster"):
        for key, value in (("sentinels", cluster.sentinels), ("service", cluster.service)):
            if value:
                report(("cluster", key), 'of no use without kind = "sentinel"')
    if cluster.secret_file:
        try:
            read_secrets(cluster.secret_file)
        except ValueError as exc:
            report(("cluster", "secret_file"), str(exc))


def _url_problem(cluster: ClusterConfig) -> str:
    """What is wrong with the URL, which may have a password in it; empty: nothing."""
    try:
        parts = urlsplit(cluster.url)
        scheme, host, path, _ = parts.scheme, parts.hostname, parts.path, parts.port
    except ValueError:
        return "no URL"
    if scheme == "unix":
        if cluster.kind != "single":
            return f'kind = "{cluster.kind}" has no unix sockets'
        return "" if path and not host else "expected unix:///path"
    if scheme not in ("redis", "rediss"):
        return f"{shown(scheme)} is no scheme of a store; expected redis://, rediss:// or unix://"
    return "" if host else f"no host; expected {scheme}://HOST:PORT"


def _is_host_and_port(text: str) -> bool:
    try:
        address = parse_address(text)
    except ValueError:
        return False
    return not address.is_unix and "://" not in text
