"""Programs in pairs that differ in exactly one thing, and what a daemon that serves both must never confuse."""
