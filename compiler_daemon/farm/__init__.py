"""A farm: workers of Dask's that compile for this daemon, on other machines.

Dask itself lives in a process of its own (`python -m compiler_daemon.farm`) and on the nodes; the daemon speaks with
that process in frames, and neither it nor any trainer imports Dask.
"""
