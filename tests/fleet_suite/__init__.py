"""A small fleet on one machine, with real engines: what must hold where daemons share a tier. `make fleet`."""
