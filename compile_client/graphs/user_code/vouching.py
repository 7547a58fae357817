"""Versions that users give to operators of theirs, where nobody can see what these do."""

from __future__ import annotations

_versions: dict[str, str] = {}


def vouch(name: str, version: str) -> None:
    """Remember the version of an operator. See `compile_client.operator_version`."""
    space, _, operator = name.partition("::")
    if not space or not operator or "." in name:
        raise ValueError(f'an operator is named "namespace::operator", without an overload; not {name!r}')
    if not version:
        raise ValueError(f"{name} needs a version that is not empty")
    _versions[name] = version


def version_of(name: str) -> str:
    """Return the version that the user gave to an operator; empty where there is none."""
    return _versions.get(name, "")
