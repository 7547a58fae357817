"""Runs: what trainers reported of their graphs. Bounded, and apart from the store: it can be lost without harm.

Guarantees: what a report returned for survives restarts and kill -9. A file that is damaged is set aside, and the
daemon begins a new one. Figures of programs are kept when the runs they came from have gone.
"""

from __future__ import annotations

from compiler_daemon.insight.runs.log import RunLog
from compiler_daemon.insight.runs.records import GraphRecord, Outcome, ProgramFigures, RunReport, RunSummary

__all__ = ["GraphRecord", "Outcome", "ProgramFigures", "RunLog", "RunReport", "RunSummary"]
