"""Front end 2: a gunicorn worker class with an event loop of its own. `gunicorn -k prefork_lb.worker.ProxyWorker`."""
from prefork_lb.worker.proxy_worker import ProxyWorker

__all__ = ["ProxyWorker"]
