"""Triton kernels, for the daemon: a corpus, and a bench of where a process gets them compiled from."""
