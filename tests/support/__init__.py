"""Real peers for the tests: a scripted origin, the balancer under a real gunicorn, raw clients."""
