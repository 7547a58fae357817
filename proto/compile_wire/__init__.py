"""What client and daemon share on the wire."""
