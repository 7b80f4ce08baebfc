"""Policies on virtual time: a load, from an access log or described, against each policy of this package. No sockets."""
