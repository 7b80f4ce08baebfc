"""A site's own code on the way of requests: what a filter is made of. See docs/filters.md."""
from prefork_lb.filters.filter import Answer, Exchange, Filter, Setup
from prefork_lb.filters.http import HTTPAnswer, HTTPClient, NoAnswer
from prefork_lb.filters.memory import Memory
from prefork_lb.filters.message import Fields, Request, Response

__all__ = ["Answer", "Exchange", "Fields", "Filter", "HTTPAnswer", "HTTPClient", "Memory", "NoAnswer", "Request", "Response",
           "Setup"]
