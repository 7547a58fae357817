"""The shared tier: artifacts of other daemons, in a directory, a bucket or a Redis that the lab has already.

Imported only where a tier is configured. The local store stays the truth for this daemon's trainers; whatever happens
to the tier is a miss, or something that is not shared this time.
"""
