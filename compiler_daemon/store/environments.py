"""Environments that have asked, and the facts known about each. Few and small, so they are kept in memory, too.

An environment's file holds its fields in the form whose digest is its id. A damaged file is dropped at start: the next
process of that environment brings the fields again, and a worker the facts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from compile_wire.digest import Digest, digest_of
from compile_wire.environment import check_environment, environment_bytes, environment_id
from compile_wire.errors import MalformedError, WireError
from compile_wire.limits import MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_FIELDS
from compile_wire.packing import pack, unpack
from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import BlobMissingError
from compiler_daemon.store.files import FileStore, FileStores
from compiler_daemon.store.index import Index
from compiler_daemon.store.record_files import decode_facts_record, encode_facts_record
from compiler_daemon.store.space import SpaceQuota

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES = MAX_ENVIRONMENT_BYTES + MAX_ENVIRONMENT_FIELDS * 16
"""Every field with the heads that msgpack gives it."""

_MAX_FACTS_BYTES = 64 * 1024
"""What `compile_wire.facts` accepts."""


class Environments:
    """The environments of a store. Safe to call from any thread."""

    def __init__(
        self, config: StoreConfig, directory: Directory, index: Index, file_stores: FileStores, quota: SpaceQuota
    ) -> None:
        self._quota = quota
        self._max_environments = config.max_environments
        self._directory = directory
        self._index = index
        self._file_stores = file_stores
        self._fields: dict[Digest, dict[str, str]] = {}
        """Oldest first."""
        self._facts: dict[Digest, bytes] = {}
        with directory.failing_as("read the environments"):
            self._load()

    def put(self, fields: Mapping[str, str]) -> Digest:
        """Keep an environment. See `Store.put_environment`."""
        check_environment(fields)
        environment = environment_id(fields)
        if environment in self._fields:
            return environment
        data = pack([[name, fields[name]] for name in sorted(fields)])
        with (
            self._quota.reserved(len(data)),
            self._index.lock,
            self._directory.failing_as("store an environment"),
        ):
            if environment not in self._fields:
                while len(self._fields) >= self._max_environments:
                    self._delete_one()
                self._file_stores.environments.put(environment, data)
                self._fields[environment] = dict(fields)
        return environment

    def size(self) -> int:
        """Return how many bytes of the store all of them take, with their facts."""
        # Copies: other threads put while this one adds up.
        fields = sum(environment_bytes(one) for one in list(self._fields.values()))
        return fields + sum(len(facts) for facts in list(self._facts.values()))

    def all(self) -> dict[Digest, dict[str, str]]:
        """Return every environment, oldest first."""
        with self._index.lock:
            return {environment: dict(fields) for environment, fields in self._fields.items()}

    def put_facts(self, environment: Digest, facts: bytes) -> None:
        """Keep an environment's facts. See `Store.put_facts`."""
        if len(facts) > _MAX_FACTS_BYTES:
            raise MalformedError(f"facts of {len(facts)} bytes are more than {_MAX_FACTS_BYTES}")
        with self._index.lock, self._directory.failing_as("store facts"):
            if environment not in self._fields:
                raise BlobMissingError([environment], "no such environment: store it first")
            if self._facts.get(environment) != facts:
                self._file_stores.facts.put(environment, encode_facts_record(environment, facts))
                self._facts[environment] = facts

    def get_facts(self, environment: Digest) -> bytes:
        """Return an environment's facts. See `Store.get_facts`."""
        return self._facts.get(environment, b"")

    def _delete_one(self) -> None:
        """Drop the oldest environment that no artifact is for, or the oldest."""
        with self._index.reading() as connection:
            used = {row[0] for row in connection.execute("SELECT DISTINCT environment FROM artifacts")}
        environment = next((name for name in self._fields if name not in used), next(iter(self._fields)))
        self._file_stores.facts.remove(environment)
        self._file_stores.environments.remove(environment)
        self._facts.pop(environment, None)
        del self._fields[environment]

    def _load(self) -> None:
        file_store = self._file_stores.environments
        for environment, _ in sorted(file_store.listing().items(), key=lambda item: item[1].modified_ns):
            fields = _read_fields(file_store, environment)
            if fields is None:
                logger.warning("environment %s is damaged and was dropped", environment)
                file_store.remove(environment)
            else:
                self._fields[environment] = fields
        for environment in self._file_stores.facts.listing():
            try:
                facts = decode_facts_record(self._file_stores.facts.read(environment), environment)
            except WireError:
                logger.warning("the facts of environment %s are damaged and were dropped", environment)
                self._file_stores.facts.remove(environment)
            else:
                if environment in self._fields:
                    self._facts[environment] = facts


def _read_fields(file_store: FileStore, environment: Digest) -> dict[str, str] | None:
    data = file_store.read(environment)
    if digest_of(data) != environment:
        return None
    try:
        fields = dict(unpack(data, max_bytes=_MAX_FILE_BYTES, what="environment", max_lists=MAX_ENVIRONMENT_FIELDS + 1))
        check_environment(fields)
    except (WireError, ValueError, TypeError):
        return None
    return fields
