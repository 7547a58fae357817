"""When the tier is far away, a daemon fetches at the handshake what the program last asked for."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from benches.harness.s3_server import S3Server
from compile_wire.v1 import runs_pb2 as pb
from compile_wire.v1 import runs_pb2_grpc as pb_grpc
from compiler_daemon.tier.prefetch import MAX_KEYS, read_list
from tests.daemon.daemon_process import ENVIRONMENT, wait_until
from tests.daemon.run_samples import report, run_name
from tests.daemon.tier.node_samples import Node, started

_KEYS = [f"k{number}" for number in range(12)]


def test_a_program_that_says_hello_finds_its_artifacts_there(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.variables().items():
        monkeypatch.setenv(name, value)
    a, b = both = [Node(tmp_path / name, f"s3://tier/{tmp_path.name}") for name in "ab"]
    with contextmanager(started)(both):
        for key in _KEYS:
            a.compiled(key, b"ok", program="train.py")
        graphs = [report(number, key) for number, key in enumerate(_KEYS, 1)]
        request = pb.ReportRunRequest(
            run=run_name(), environment_id=ENVIRONMENT, program="train.py", graphs=graphs, ended=True
        )
        pb_grpc.RunServiceStub(a.channel).ReportRun(request, **a.options())
        written = len(_KEYS)
        wait_until(lambda: a.counted("tier_written") >= written, what="the artifacts are in the tier")

        def fetched() -> bool:
            b.handshake(program="train.py")
            return b.status().artifacts == len(_KEYS)

        # A hello before the list is written fetches nothing, and the next one may only a minute later.
        wait_until(lambda: _list_is_there(a), what="the list is in the tier")
        wait_until(fetched, what="the artifacts are fetched without a lookup")
        assert b.counted("lookups") == 0
        hits = b.counted("tier_hits")

        assert all(len(b.lookup(key)) == 1 for key in _KEYS)
        assert b.counted("tier_hits") == hits == len(_KEYS), "a lookup asked the tier for what was fetched"


def _list_is_there(node: Node) -> bool:
    import asyncio
    import os

    from compiler_daemon.tier.address import list_name, tier_at
    from compiler_daemon.tier.engines import open_engine

    async def look() -> bool:
        engine = open_engine(tier_at(node.settings["tier"]["places"][0], os.environ))
        try:
            return await engine.get(list_name(ENVIRONMENT, "train.py"), 2**16) is not None
        finally:
            await engine.close()

    return asyncio.run(look())


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b"[1]", b'["a\\u0000b"]', b'[""]', b"[[]]", b"[" * 10_000])
def test_what_is_no_list_of_keys_fetches_nothing(data: bytes) -> None:
    assert read_list(data) == ()


def test_a_list_is_read_up_to_a_bound() -> None:
    assert len(read_list(b"[" + b",".join([b'"k"'] * 1000) + b"]")) == MAX_KEYS
