"""What a daemon keeps: the calls, and the answers as people read them."""
