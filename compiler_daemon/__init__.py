"""The compile daemon: each graph compiled once, verified, and served to every trainer.

Rooms, from the door inwards: `cli` and `app` (wiring), `rpc` (the wire), `flights`, `handshake` and `cache` (the
domain), `store` (artifacts on disk), `pool` (worker processes), and `worker`, which runs in processes of its own and is
the only room with torch. What is not named here is private to its room.
"""

__version__ = "0.1.0"
"""Written here as well as in the packaging: asking the installed metadata would cost the daemon two megabytes."""
