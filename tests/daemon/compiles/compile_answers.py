"""What the tests read off a daemon's answers to a compile."""

from __future__ import annotations

from typing import Any

from compile_wire.v1 import compiler_daemon_pb2 as pb


def reason_of(answer: pb.ArtifactEntry | pb.Refused) -> str:
    assert isinstance(answer, pb.Refused), answer
    return pb.Refused.Reason.Name(answer.reason).removeprefix("REASON_")


def artifact_of(answer: pb.ArtifactEntry | pb.Refused) -> pb.ArtifactEntry:
    assert isinstance(answer, pb.ArtifactEntry), answer
    return answer


def kinds(events: list[Any]) -> list[str]:
    return [event.WhichOneof("event") for event in events]
