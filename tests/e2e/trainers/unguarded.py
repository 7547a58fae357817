"""Functions of which dynamo makes something that depends on the process, and may be guarded by nobody.

What a process is like is chosen by `UNGUARDED`, and by Python's seed of hashes. The last line says of each function
whether compiled and eager agree, bit for bit; the arguments are the functions' names, all where there are none.
"""

import contextvars
import decimal
import functools
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import torch

NUMBER = int(os.environ["UNGUARDED"])
SCALES = {"one": 2, "two": 3, "three": 4, "four": 5, "five": 6}
SET = {"one", "two", "three", "four", "five"}
FROZEN = frozenset(SET)
VARIABLE = contextvars.ContextVar("VARIABLE", default=NUMBER)
LOCAL = threading.local()
LOCAL.number = NUMBER
sys.setrecursionlimit(3000 + NUMBER)
decimal.getcontext().prec = 20 + NUMBER
sys.argv.append("x" * NUMBER)


class Meta(type):
    @property
    def number(cls) -> int:
        return NUMBER


class WithMeta(metaclass=Meta):
    pass


class Slotted:
    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = NUMBER


class Computed:
    @functools.cached_property
    def number(self) -> int:
        return NUMBER

    @staticmethod
    def still() -> int:
        return NUMBER

    @classmethod
    def named(cls) -> int:
        return len(cls.__name__) * NUMBER

    def __len__(self) -> int:
        return NUMBER

    def __getattr__(self, name: str) -> int:
        return NUMBER * len(name)


SLOTTED, COMPUTED = Slotted(), Computed()
PARTIAL = functools.partial(torch.mul, other=NUMBER)


@functools.lru_cache
def remembered() -> int:
    return NUMBER


@torch._dynamo.assume_constant_result
def assumed() -> int:
    return NUMBER


@torch._dynamo.assume_constant_result
def assumed_tensor() -> torch.Tensor:
    return torch.full((), float(NUMBER))


def constant_result(x: torch.Tensor) -> torch.Tensor:
    return x * assumed()


def constant_tensor(x: torch.Tensor) -> torch.Tensor:
    return x * assumed_tensor()


def hash_of_text(x: torch.Tensor) -> torch.Tensor:
    return x * (hash("a text") % 1009)


def hash_of_tuple(x: torch.Tensor) -> torch.Tensor:
    return x * (hash(("a", 1)) % 1009)


def order_of_set_literal(x: torch.Tensor) -> torch.Tensor:
    names = {"one", "two", "three", "four", "five"}
    for name in names:
        x = x * SCALES[name] + 1
    return x


def order_of_set_built(x: torch.Tensor) -> torch.Tensor:
    for name in set(SCALES):
        x = x * SCALES[name] + 1
    return x


def order_of_set_comprehension(x: torch.Tensor) -> torch.Tensor:
    for name in {name + "" for name in SCALES}:
        x = x * SCALES[name] + 1
    return x


def order_of_set_difference(x: torch.Tensor) -> torch.Tensor:
    for name in SCALES.keys() - {"one"}:
        x = x * SCALES[name] + 1
    return x


def order_of_global(x: torch.Tensor) -> torch.Tensor:
    for name in SET:
        x = x * SCALES[name] + 1
    return x


def order_of_frozen(x: torch.Tensor) -> torch.Tensor:
    for name in FROZEN:
        x = x * SCALES[name] + 1
    return x


def popped(x: torch.Tensor) -> torch.Tensor:
    return x * SCALES[set(SCALES).pop()]


def identity(x: torch.Tensor) -> torch.Tensor:
    return x * (id(SCALES) // 64 % 1009)


def environ(x: torch.Tensor) -> torch.Tensor:
    return x * int(os.environ["UNGUARDED"])


def getenv(x: torch.Tensor) -> torch.Tensor:
    return x * int(os.getenv("UNGUARDED", "0"))


def recursion_limit(x: torch.Tensor) -> torch.Tensor:
    return x * sys.getrecursionlimit()


def arguments(x: torch.Tensor) -> torch.Tensor:
    return x * len(sys.argv[-1])


def context_variable(x: torch.Tensor) -> torch.Tensor:
    return x * VARIABLE.get()


def thread_local(x: torch.Tensor) -> torch.Tensor:
    return x * LOCAL.number


def thread_name(x: torch.Tensor) -> torch.Tensor:
    return x * len(threading.current_thread().name)


def cached(x: torch.Tensor) -> torch.Tensor:
    return x * remembered()


def metaclass(x: torch.Tensor) -> torch.Tensor:
    return x * WithMeta.number


def slot(x: torch.Tensor) -> torch.Tensor:
    return x * SLOTTED.number


def cached_property(x: torch.Tensor) -> torch.Tensor:
    return x * COMPUTED.number


def still(x: torch.Tensor) -> torch.Tensor:
    return x * COMPUTED.still() + COMPUTED.named() + len(COMPUTED)


def made_up(x: torch.Tensor) -> torch.Tensor:
    return x * COMPUTED.anything


def partial(x: torch.Tensor) -> torch.Tensor:
    return PARTIAL(x)


def current_folder(x: torch.Tensor) -> torch.Tensor:
    return x * len(Path.cwd().parts)


def process_number(x: torch.Tensor) -> torch.Tensor:
    return x * (os.getpid() % 1009)


def threads(x: torch.Tensor) -> torch.Tensor:
    return x * torch.get_num_threads()


def precision(x: torch.Tensor) -> torch.Tensor:
    return x * len(torch.get_float32_matmul_precision())


def printed_options(x: torch.Tensor) -> torch.Tensor:
    return x * decimal.getcontext().prec


def seed(x: torch.Tensor) -> torch.Tensor:
    return x * (torch.initial_seed() % 1009)


def size_of(x: torch.Tensor) -> torch.Tensor:
    return x * sys.getsizeof("x" * NUMBER)


FUNCTIONS = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__annotations__", {}).keys() == {"x", "return"}
}


def main() -> None:
    torch.manual_seed(NUMBER)
    found: dict[str, Any] = {}
    for name in sys.argv[1:-1] or FUNCTIONS:
        torch._dynamo.reset()
        x = torch.arange(5.0)  # whole numbers: what is computed in another order is the same
        try:
            expected = FUNCTIONS[name](x)
            found[name] = torch.equal(torch.compile(FUNCTIONS[name])(x), expected)
        except Exception as error:  # noqa: BLE001 - what torch cannot trace is no difference
            found[name] = f"{type(error).__name__}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
