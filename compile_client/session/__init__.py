"""This process and the daemon: the process's client, one request on its way, what goes on in the background."""
