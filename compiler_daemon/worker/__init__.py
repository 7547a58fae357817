"""The compile worker: a subprocess with torch that rebuilds a graph, proves its key, compiles it, packs the artifact.

The only room of the daemon where torch may be imported; `protocol` is imported by the daemon, too, and is free of it.
"""
