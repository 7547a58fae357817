"""The way to the daemon, read once for trainers, commands and the daemon itself.

Its address, what opens it, the private files that both lie in, who serves a socket, and in words why a connection over
TLS does not come about. Raises `EndpointError`; each side makes its own errors of it.
"""
