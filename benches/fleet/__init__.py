"""What a tier has to bear of a fleet that nobody here has: modelled from what was measured on one machine."""
