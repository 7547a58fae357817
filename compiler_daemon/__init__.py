"""The compile daemon: each graph compiled once, verified, and served to every trainer.

Rooms, from the door inwards: `cli` and `app` (wiring), `rpc` (the wire), `flights`, `handshake` and `cache` (the
domain), `store` (artifacts on disk), `pool` (worker processes), and `worker`, which runs in processes of its own and is
the only room with torch. What is not named here is private to its room.
"""
