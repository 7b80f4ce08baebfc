"""gunicorn finds this file in the folder it is started in, so that `gunicorn prefork_lb:app` is all there is to type.

bind, workers and the rest come from the TOML configuration; see docs/configuration.md.
"""
from prefork_lb.gunicorn.settings import settings

globals().update(settings())
