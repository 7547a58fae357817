"""What an operator alone may call: everything that changes what is kept, or ends the daemon.

A trainer needs none of it. Each name is a method of the protocol in full; a test holds the table and the schema's marks
(WRITES) together.
"""

from __future__ import annotations

_INVENTORY = "/compiler_daemon.v1.InventoryService/"

OPERATOR_METHODS = frozenset(
    {
        "/compiler_daemon.v1.AdminService/Shutdown",
        f"{_INVENTORY}RemoveArtifacts",
        f"{_INVENTORY}SetPinned",
        f"{_INVENTORY}Collect",
        f"{_INVENTORY}ImportBlob",
        f"{_INVENTORY}ImportArtifact",
    }
)
