"""The wire: messages become values and values become messages; nothing is decided here.

One thin servicer for each service; what holds for every call (token, status codes, log line, refusal while draining)
stands once, in an interceptor.
"""
