"""What gunicorn is told, and what is taken from its internals."""
