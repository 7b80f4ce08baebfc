"""Front end for the worker classes of gunicorn: the engine as a WSGI application."""
