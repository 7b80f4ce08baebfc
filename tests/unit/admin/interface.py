"""An administration interface over an instance in real shared memory, asked by werkzeug's test client."""
from __future__ import annotations

import json
from typing import Any

from werkzeug.test import Client, TestResponse

from prefork_lb.admin.application import AdminApplication
from prefork_lb.admin.publishing import Publisher
from prefork_lb.config.admin import AdminConfig
from prefork_lb.observe.snapshot import Snapshots
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.published_config import publish
from prefork_lb.shared.segment import Segment
from prefork_lb.shared.table import PoolEntry, ServerEntry, register

OPERATOR, READER = "0123456789-operator", "0123456789-reader"
CONFIG = {"pools": {"web": {"servers": [{"address": "127.0.0.1:8001"}, {"address": "127.0.0.1:8002"}]},
                    "api": {"servers": [{"address": "https://127.0.0.1:8003"}, {"address": "unix:/run/api.sock"}]}},
          "routes": [{"hosts": ["split.test"], "split": {"web": 95, "api": 5}}, {"pool": "web"}]}


class Interface:
    """The application, and requests to it as curl sends them."""

    def __init__(self, segment: Segment, admin: AdminConfig) -> None:
        self.segment, self.ledger = segment, Ledger(segment)
        pools = [PoolEntry(name, [ServerEntry(server["address"], 1, 0, False) for server in pool["servers"]])
                 for name, pool in CONFIG["pools"].items()]
        self.slots = {pool.name: register(segment, self.ledger, pools)[pool.name].slots for pool in pools}
        publish(segment, self.ledger, json.dumps(CONFIG).encode())
        self.publisher = Publisher(Snapshots(segment))
        self.application = AdminApplication(segment, admin, self.publisher)

    def ask(self, path: str, method: str = "GET", token: str = "", **more: Any) -> TestResponse:
        """One request, without a memory of cookies."""
        headers = {"Host": "127.0.0.1:9900"} | ({"Authorization": f"Bearer {token}"} if token else {}) | more.pop("headers", {})
        return Client(self.application, use_cookies=False).open(
            path, method=method, headers=headers, environ_base={"REMOTE_ADDR": "127.0.0.1"}, **more)
