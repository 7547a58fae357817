"""The figures of `stats` where no daemon serves: read from the store and the log of runs, as a daemon would."""

from __future__ import annotations

from compiler_daemon.admin.answers import Figures
from compiler_daemon.admin.insight.calls import as_figures
from compiler_daemon.admin.inventory.offline import opened_store
from compiler_daemon.config import DaemonConfig, DaemonLocation
from compiler_daemon.insight.runs import RunLog
from compiler_daemon.insight.statistics import StatisticsCollector
from compiler_daemon.metrics import Counters
from compiler_daemon.rpc.run_messages import pack_statistics


def stored_statistics(place: DaemonLocation) -> Figures:
    """Return the figures since the store was made; how large it may be is what a daemon is told, and left out.

    Raises `DaemonError` where the store cannot be opened.
    """
    config = DaemonConfig(directory=place.directory, address=place.address or place.default_address)
    with opened_store(place) as store:
        runs = RunLog(config.runs)
        try:
            found = pack_statistics(StatisticsCollector(store, runs, counters=Counters()).collect_now())
        finally:
            runs.close()
    found.store_max_bytes = 0
    return as_figures(found)
