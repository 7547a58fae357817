"""The compile worker: a subprocess with torch that rebuilds a graph, proves its key, compiles it and packs the artifact.

The only room of the daemon where torch may be imported; `protocol` is imported by the daemon, too, and stays free of it.
"""
