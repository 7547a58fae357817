"""Versions that users give to operators of theirs, where nobody can see what these do."""

from __future__ import annotations

_versions: dict[str, str] = {}


def operator_version(name: str, version: str) -> None:
    """Vouch for an operator of your own: as long as `version` is the same, it does the same while torch compiles.

    `name` is "namespace::operator", as torch has it. Call it in every program that uses the operator, before the first
    graph with it is compiled; change `version` whenever the operator's fake, formula or kernels change. Graphs with
    operators that cannot be looked into (written in C++, or with state that cannot be read) are shared only so.

    Raises `ValueError` where the name has no namespace, or the version is empty.
    """
    space, _, operator = name.partition("::")
    if not space or not operator or "." in name:
        raise ValueError(f'an operator is named "namespace::operator", without an overload; not {name!r}')
    if not version:
        raise ValueError(f"{name} needs a version that is not empty")
    _versions[name] = version


def version_of(name: str) -> str:
    """Return the version that the user gave to an operator; empty where there is none."""
    return _versions.get(name, "")
