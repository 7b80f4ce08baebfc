"""A gunicorn configuration file: `gunicorn -c file:.../prefork_lb/gunicorn_conf.py prefork_lb:app`.

gunicorn reads it again at every reload (HUP), and so the TOML configuration; as `python:prefork_lb.gunicorn_conf` it would not.
"""
from prefork_lb.gunicorn_settings import settings

globals().update(settings())
