"""What lies in the store after a soak: opened without a daemon, every artifact and every byte compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon
from benches.harness.synthetic import ENVIRONMENT, Catalogue, complaint
from compile_wire.environment import environment_id
from compile_wire.manifest import decode_manifest
from compile_wire.signature import verify_artifact
from compiler_daemon.store import Store, StoreConfig


def audit(daemon: ServedDaemon, catalogue: Catalogue, store_bytes: int) -> dict[str, Any]:
    """Read everything; return what was found. The daemon must have ended."""
    root = daemon.directory / "store"
    left = _files(root / "incoming")
    secret = (daemon.directory / "secret").read_bytes()
    synthetic = environment_id(ENVIRONMENT)
    wrong: list[str] = []
    artifacts = blobs = 0
    with Store.open(StoreConfig(root=root, max_bytes=store_bytes, address="audit")) as store:
        report = store.scan_report
        numbers = {catalogue.key(number): number for number in range(catalogue.keys)}
        for row in store.artifacts():
            artifacts += 1
            found = {one.digest: one for one in store.find(row.environment, row.key, limit=64)}
            if row.digest not in found:
                wrong.append(f"{row.key}: in the list, but cannot be had")
                continue
            stored = found[row.digest]
            manifest = decode_manifest(stored.manifest)
            verify_artifact(
                secret, stored.signature, key=row.key, environment=row.environment, manifest=stored.manifest
            )
            data = {ref.sha256: store.read_blob(ref.sha256) for ref in manifest.blobs}
            blobs += len(data)
            if row.environment == synthetic and (
                text := complaint(catalogue.compiled(numbers[row.key]), manifest, data)
            ):
                wrong.append(text)
        usage = store.usage()
    return {
        "artifacts_read": artifacts,
        "blobs_read": blobs,
        "wrong": wrong[:20],
        "out_of_place": {
            "lost_blobs": report.lost_blobs,
            "lost_artifacts": report.lost_artifacts,
            "adopted_blobs": report.adopted_blobs,
            "adopted_artifacts": report.adopted_artifacts,
            "index_set_aside": report.index_set_aside,
        },
        "bytes": usage.bytes,
        "max_bytes": usage.max_bytes,
        "quarantined": usage.quarantined,
        "quarantine_files": _files(root / "quarantine"),
        "temporary_files": left,
    }


def _files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
