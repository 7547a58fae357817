"""Who may come in, and by which door: the directory, the register of clients, keys for TLS, sockets, descriptors."""
