"""What programs do with a compiled graph."""
