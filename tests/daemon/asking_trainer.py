"""A trainer without torch that asks its daemon for the graphs it is given, as a trainer in compile-only mode does.

A graph is `KEY=TEXT`, where the text tells the fake worker what to do.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from compile_client.config import ClientConfig
from compile_client.session.client import DaemonClient
from tests.daemon.daemon_process import ENVIRONMENT, FIELDS


def main() -> None:
    report = Path(os.environ["TORCH_COMPILE_CLIENT_REPORT"])
    # A report by the client itself would ask torch for dynamo's limit.
    variables = {name: value for name, value in os.environ.items() if name != "TORCH_COMPILE_CLIENT_REPORT"}
    client = DaemonClient(ClientConfig.from_environment(variables), lambda: FIELDS, program="asking", env={})
    for named in sys.argv[1:]:
        key, _, graph = named.partition("=")
        client.background.ask(key, "forward (model.py:1)", graph.encode())
    client.close()
    rows = client.background.as_rows()
    report.write_text(json.dumps({"warm": {"environment": ENVIRONMENT, "recompile_limit": 8, "graphs": rows}}))


if __name__ == "__main__":
    main()
