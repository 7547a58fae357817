"""Serves like `compiler-daemon serve`, but takes settings that the command line lacks: its first argument is JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from compiler_daemon.config import DaemonConfig, DaemonLocation, FarmConfig, FlightConfig, PoolConfig, TierConfig
from compiler_daemon.serve import serve_config


def main() -> None:
    settings = json.loads(sys.argv[1])
    tier = settings.get("tier", {})
    location = DaemonLocation.resolve({}, directory=Path(settings["directory"]), address=settings.get("address"))
    serve_config(
        DaemonConfig(
            directory=location.directory,
            address=location.address or location.default_address,
            pool=PoolConfig(**{**settings["pool"], "command": tuple(settings["pool"]["command"])}),
            flights=FlightConfig(**settings.get("flights", {})),
            tier=TierConfig(**{**tier, "places": tuple(tier.get("places", ()))}),
            farm=FarmConfig(**settings["farm"]) if "farm" in settings else None,
            **settings.get("daemon", {}),
        ),
        verbose=True,
    )


if __name__ == "__main__":
    main()
