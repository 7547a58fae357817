"""What the benches share; no bench is imported here."""
