"""Tensor subclasses: constants in their context, and how their dispatch changes operators."""

from __future__ import annotations

from tests.twins.thing import BOTH, Thing

_WRAPPER = '''
class Scaled(torch.Tensor):
    """A wrapper around one tensor, with a number that it multiplies every product by."""

    @staticmethod
    def __new__(cls, inner, by):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner, by):
        self.inner = inner
        self.by = by

    def __tensor_flatten__(self):
        return ["inner"], CONTEXT

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Scaled(inner["inner"], REBUILT)

    @classmethod
    def __torch_dispatch__(cls, func, types, args, kwargs=None):
        by = max(value.by for value in args if isinstance(value, Scaled))
        plain = [value.inner if isinstance(value, Scaled) else value for value in args]
        result = func(*plain, **(kwargs or {}))
        return Scaled(result * NUMBER if func is torch.ops.aten.mul.Tensor else result, by)
'''


_SUBCLASS_DRIVE = """
for rows in ROWS:
    x, w = inputs(rows)
    with account.step(f"{rows} rows"):
        with torch.no_grad():
            y = run(Scaled(x.detach(), BY), w.detach())
        account.tell(y=y.inner, by=y.by)
"""


def _subclass(name: str, differs: str, setup: str) -> Thing:
    return Thing(
        name=name,
        kind="tensor subclass",
        differs=differs,
        setup=setup,
        core="return torch.sin(x * x)",
        drive=_SUBCLASS_DRIVE,
        fits=("top", "submodule"),
        times=BOTH,
        parts=("user_code",),
    )


def _hidden(context: str, rebuilt: str, number: str) -> str:
    return _WRAPPER.replace("CONTEXT", context).replace("REBUILT", rebuilt).replace("NUMBER", number)


SUBCLASSES = (
    _subclass(
        "number in a subclass's context",
        "a number in a subclass's context",
        "BY = pick(2.0, 5.0)\n\n" + _hidden("self.by", "context", "by"),
    ),
    _subclass(
        "number in a dict in a subclass's context",
        "a number in a dict in a subclass's context",
        "BY = pick(2.0, 5.0)\n\n" + _hidden("{'by': self.by}", "context['by']", "by"),
    ),
    _subclass(
        "object in a subclass's context",
        "a number in an object in a subclass's context",
        """
import dataclasses

BY = pick(2.0, 5.0)


@dataclasses.dataclass(frozen=True)
class By:
    by: float
"""
        + _hidden("By(self.by)", "context.by", "by"),
    ),
    _subclass(
        "number in a table of a subclass",
        "a number in a table that a subclass reads",
        """
BY = 1.0
TABLE = {'by': pick(2.0, 5.0)}
"""
        + _hidden("self.by", "context", "TABLE['by']"),
    ),
    _subclass(
        "number of a subclass's class",
        "a number that a subclass's class has",
        "BY = 1.0\n" + _hidden("self.by", "context", "Scaled.factor") + "\n    factor = pick(2.0, 5.0)\n",
    ),
    _subclass(
        "context that a subclass's hash leaves out",
        "a number in a subclass's context, of which the subclass's own hash for torch's key says nothing",
        "BY = pick(2.0, 5.0)\n\n"
        + _hidden("self.by", "context", "by")
        + "\n    def _stable_hash_for_caching(self):\n        return 'a Scaled'\n",
    ),
    Thing(
        name="function of a subclass",
        kind="tensor subclass",
        differs="what a subclass's __torch_function__ makes of tanh",
        setup="""
TABLE = {"call": pick(torch.sin, torch.cos)}


class Other(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(TABLE["call"] if func is torch.tanh else func, types, args, kwargs)
""",
        core="return torch.tanh(x)",
        drive="""
        for rows in ROWS:
            x, w = inputs(rows)
            with account.step(f"{rows} rows"):
                account.tell(y=run(x.detach().as_subclass(Other), w.detach()))
        """,
        fits=("top", "submodule"),
        times=BOTH,
    ),
)
