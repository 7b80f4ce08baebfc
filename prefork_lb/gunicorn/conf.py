"""A gunicorn configuration file: `gunicorn -c file:.../prefork_lb/gunicorn/conf.py prefork_lb:app`.

At every reload (HUP) gunicorn reads this file again, and with it the TOML configuration. Given as
`python:prefork_lb.gunicorn.conf`, it would not be read again.
"""
from prefork_lb.gunicorn.settings import settings

globals().update(settings())
