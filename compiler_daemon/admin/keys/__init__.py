"""Keys made, rotated, handed out and taken back; certificates."""
