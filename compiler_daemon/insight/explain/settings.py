"""What two graphs are compiled under, compared: inductor's and functorch's settings, torch's global state, symbols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from compile_wire.graph.spec import GraphSpec, Value
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.words import Words

_STATE_WORDS = {
    "grad": "gradients recorded (grad mode)",
    "inference": "inference mode",
    "default_dtype": "default dtype",
    "threads": "threads",
    "matmul_precision": "float32 matmul precision",
    "autocast": "autocast",
    "autocast_cache": "autocast's cache of weights",
    "deterministic": "deterministic algorithms",
    "deterministic_warn_only": "deterministic algorithms, warnings only",
    "fill_uninitialized": "filling of uninitialized memory",
    "cudnn": "cudnn (enabled, benchmark, deterministic)",
    "mkldnn": "mkldnn",
    "sdp": "attention kernels (flash, memory-efficient, math, cudnn)",
}
_MAX_TOLD = 12
_ALL = 64
"""A spec with more settings than this has all of them, and one with fewer only those that differ from the defaults."""


def settings_differences(ours: GraphSpec, theirs: GraphSpec) -> list[Difference]:
    """Return in what the settings of two graphs differ."""
    words, others = Words(ours), Words(theirs)
    found = []
    for kind, mine, other in (
        ("inductor", ours.inductor, theirs.inductor),
        ("functorch", ours.functorch, theirs.functorch),
    ):
        for name, now, before in _differing(mine, other):
            now_text = words.value(now) if now is not _DEFAULT else "torch's default"
            before_text = others.value(before) if before is not _DEFAULT else "torch's default"
            text = f"{kind} config {name} is {now_text}, was {before_text}"
            found.append(Difference(kind=kind, text=text))
    for name in sorted(set(ours.state) | set(theirs.state)):
        now, before = ours.state.get(name), theirs.state.get(name)
        if now != before or type(now) is not type(before):
            kind = name if name in {"threads", "autocast"} else "state"
            found.append(Difference(kind=kind, text=_state(name, words.value(now), others.value(before), now, before)))
    return found[:_MAX_TOLD]


def _state(name: str, now_text: str, before_text: str, now: Value, before: Value) -> str:
    word = _STATE_WORDS.get(name, name)
    if name == "autocast":
        ours, theirs = _autocast(now, before)
        return f"autocast {ours}, was {theirs}"
    if isinstance(now, bool) and isinstance(before, bool):
        return f"{word} {'on' if now else 'off'}, was {'on' if before else 'off'}"
    return f"{word} {now_text.strip(chr(39))}, was {before_text.strip(chr(39))}"


def _autocast(now: Value, before: Value) -> tuple[str, str]:
    """Return for both the devices on which autocast differs: on or off, or the dtype, which matters also when off."""
    ours, theirs = _by_device(now), _by_device(before)
    devices = [device for device in ours if ours[device] != theirs.get(device)]
    both_off = all(not side[device][0] for side in (ours, theirs) for device in devices if device in side)
    return tuple(  # type: ignore[return-value] # one for each of the two
        ", ".join(_device(device, *side[device], both_off=both_off) for device in devices if device in side) or "off"
        for side in (ours, theirs)
    )


def _device(device: str, enabled: bool, dtype: str, *, both_off: bool) -> str:
    if both_off:
        return f"off on {device}, with {dtype} for regions that name none"
    return f"{dtype} on {device}" if enabled else f"off on {device}"


def _by_device(value: Value) -> dict[str, tuple[bool, str]]:
    """Return autocast by device. Graphs of older daemons name a dtype where it is on, and no other devices."""
    if not isinstance(value, list) or len(value) < 3:
        return {}
    found = {}
    for device, said in zip(value[1::2], value[2::2], strict=False):
        plain = isinstance(said, list) and len(said) == 3
        found[str(device)] = (bool(said[1]), str(said[2])) if plain else (True, str(said))
    return found


class _Default:
    """A setting that is not told, because it is as torch starts up."""


_DEFAULT = _Default()


def _differing(ours: Mapping[str, Value], theirs: Mapping[str, Value]) -> Iterator[tuple[str, Value, Value]]:
    uneven = (len(ours) > _ALL) != (len(theirs) > _ALL)
    for name in sorted(set(ours) | set(theirs)):
        now, before = ours.get(name, _DEFAULT), theirs.get(name, _DEFAULT)
        if now == before and type(now) is type(before):
            continue
        if uneven and (now is _DEFAULT or before is _DEFAULT):
            continue  # one tells all of its settings: most of these are defaults as well
        yield name, now, before


def symbol_differences(ours: GraphSpec, theirs: GraphSpec) -> list[Difference]:
    """Return in what symbols of the same name differ, and the guards on them."""
    words, others = Words(ours), Words(theirs)
    found = []
    known = {symbol.name: symbol for symbol in theirs.symbols}
    for symbol in ours.symbols:
        other = known.get(symbol.name)
        if other is None:
            continue
        name = symbol.name + (f" ({words.source(symbol.source)})" if symbol.source >= 0 else "")
        if symbol.hint != other.hint:
            text = f"symbol {name} stood for {symbol.hint}, was {other.hint}"
            found.append(Difference(kind="symbol", text=text, cost=0.5))
        now, before = (
            f"{w.value(['x', s.lower, 'int']) if s.lower is not None else '-oo'} to "
            f"{w.value(['x', s.upper, 'int']) if s.upper is not None else 'oo'}"
            for w, s in ((words, symbol), (others, other))
        )
        if now != before:
            found.append(Difference(kind="symbol", text=f"symbol {name} lies in {now}, was in {before}", cost=0.5))
    mine = {words.expression(row) for row in ours.guards}
    other_guards = {others.expression(row) for row in theirs.guards}
    for word, texts in (("guarded on", mine - other_guards), ("no longer guarded on", other_guards - mine)):
        if texts:
            listed = "; ".join(sorted(texts)[:3]) + (" ..." if len(texts) > 3 else "")
            found.append(Difference(kind="guard", text=f"{word} {listed}", cost=0.5))
    return found[:_MAX_TOLD]
