"""A gunicorn configuration file: `gunicorn -c file:.../prefork_lb/gunicorn/conf.py prefork_lb:app`.

gunicorn reads it again at every reload (HUP), and so the TOML configuration; as `python:prefork_lb.gunicorn.conf` it would not.
"""
from prefork_lb.gunicorn.settings import settings

globals().update(settings())
