from __future__ import annotations

import re
from pathlib import Path

from compile_wire.v1 import inventory_pb2 as pb
from compiler_daemon.rpc.auth import READER_CALLS, TRAINER_CALLS

SCHEMA = Path(__file__).parents[3] / "proto" / "compiler_daemon" / "v1" / "inventory.proto"


def test_what_the_schema_marks_as_writing_an_operator_alone_may_call():
    text = SCHEMA.read_text()
    marked = set()
    for method in pb.DESCRIPTOR.services_by_name["InventoryService"].methods:
        # The comment above the method starts after an empty line.
        comment = text[: text.index(f"rpc {method.name}(")].rsplit("\n\n", 1)[-1]
        if re.search(r"\bWRITES\b", comment):
            marked.add(f"/compiler_daemon.v1.InventoryService/{method.name}")
    assert len(marked) == 5
    assert not marked & TRAINER_CALLS
    assert "/compiler_daemon.v1.InventoryService/Describe" in READER_CALLS
