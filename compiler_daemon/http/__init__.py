"""The web page and the metrics: what the daemon does and did, over HTTP on the loopback interface, for reading only.

Nothing here is imported unless a port was asked for. From the door inwards: `server` (HTTP), `login` (who may read),
`routes` (which address shows what), then `overview`, `graph_page` and `prometheus`, which ask the daemon's rooms.
"""
