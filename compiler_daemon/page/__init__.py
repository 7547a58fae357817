"""The web page and the metrics: what the daemon does and did, over HTTP on the loopback interface, for reading only.

Nothing here is imported unless a port was asked for. From the door inwards: `door` (HTTP), `access` (who may read),
`site` (which address shows what), then `overview`, `graph_page` and `exposition`, which ask the daemon's rooms.
"""
