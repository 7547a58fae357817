"""The compile daemon: each graph compiled once, verified, and served to every trainer.

Rooms, from the door inwards: `cli`, `app` and `wiring`, `rpc` and `http` (the wire and the page), `insight` (what
people are told), `compiles` (the domain), `workers` (worker processes), `store` (artifacts on disk), `access` (who
may come in), and `worker`, which runs in processes of its own and is the only room with torch; `admin` runs in an
operator's terminal. What is not named here is private to its room.
"""

__version__ = "0.1.0"
"""Written here as well as in the packaging: asking the installed metadata would cost the daemon two megabytes."""
