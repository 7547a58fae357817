"""What of torch's cache entries must not be cached is told without reading what is no longer there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from compile_torch.entries import why_not_cacheable

_KINDS = {name: kind for name, kind in vars(torch._C._functionalization).items() if name.endswith("_ViewMeta")}
_WITH_LISTS = (
    "_reshape_alias _sparse_broadcast_to _unsafe_view as_strided as_strided_ expand permute resize_ split_with_sizes \
squeeze__dims squeeze_dims view".split()
)


def _entry(kind: type) -> SimpleNamespace:
    """Return an entry of which one output is a view of this kind, which has no numbers that could be read."""
    view = kind.__new__(kind)
    output = SimpleNamespace(view_meta_sequence=SimpleNamespace(sequence=[view]))
    return SimpleNamespace(runtime_metadata=SimpleNamespace(output_info=[output]))


@pytest.mark.parametrize("name", sorted(_KINDS))
def test_views_with_lists_of_numbers_are_not_cached_and_others_are(name: str) -> None:
    """Hold the list that was looked through against what this torch's classes say of themselves."""
    bare = name.removesuffix("_ViewMeta")

    reason = why_not_cacheable(_entry(_KINDS[name]))

    assert bool(reason) is (bare in _WITH_LISTS)
    assert f"({bare})" in reason or not reason


def test_a_view_that_does_not_say_what_it_has_is_not_cached() -> None:
    class Unknown:
        pass

    assert "(Unknown)" in why_not_cacheable(_entry(Unknown))
