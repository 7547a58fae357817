"""A daemon's status as people read it, and the address of its page."""
