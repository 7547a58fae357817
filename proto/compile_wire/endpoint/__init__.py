"""The way to the daemon: its address, what opens it, and in words why a connection over TLS does not come about."""
