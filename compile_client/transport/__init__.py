"""The way to the daemon and back: addresses, credentials, the connection, calls, what may be believed of answers."""
