"""A small trainer whose form is its argument; its last line holds results to the last bit.

The forms are `one` graph, `two`, one with an operator of its `own` that no daemon can carry, `all` of these, or a
Triton `kernel` for a GPU that need not be there. A graph runs forward and backward and gives losses and gradients; a
kernel gives the digest of each of its files.

Two variables make it stand still, or suffer, at an instant that only it can see:
    FAULTS_INSTALL=DIR:EVENT    before the first file of an artifact is made (`mkstemp`) or put in its place (`rename`):
                                writes DIR/at, waits for DIR/go
    FAULTS_MEMORY=1             its address space has no room left while the first installed object is being loaded
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATIENCE_S = 240.0


def stand_still(folder: Path, event: str) -> Callable[[str, tuple[Any, ...]], None]:
    wanted = {"mkstemp": "tempfile.mkstemp", "rename": "os.rename"}[event]
    done = False

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if done or name != wanted or ".installing-" not in str(arguments[0]):
            return
        done = True
        (folder / "at").touch()
        end = time.monotonic() + _PATIENCE_S
        while not (folder / "go").exists() and time.monotonic() < end:
            time.sleep(0.01)

    return hook


def no_room_to_load() -> Callable[[str, tuple[Any, ...]], None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    state = "waiting"

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal state
        if name.startswith("resource."):  # the hook's own calls
            return
        if state == "full":
            resource.setrlimit(resource.RLIMIT_AS, before)
            state = "over"
        elif state == "waiting" and name in {"ctypes.dlopen", "import"}:
            path = str(arguments[0] if name == "ctypes.dlopen" else arguments[1])
            if path.endswith(".so") and path.startswith(os.environ["TORCHINDUCTOR_CACHE_DIR"]):
                state = "full"
                resource.setrlimit(resource.RLIMIT_AS, (2**20, before[1]))

    return hook


if where := os.environ.get("FAULTS_INSTALL"):
    folder, _, event = where.rpartition(":")
    sys.addaudithook(stand_still(Path(folder), event))
if os.environ.get("FAULTS_MEMORY"):
    sys.addaudithook(no_room_to_load())

import torch  # noqa: E402 - the hooks are there before everything that they are about


@torch.library.custom_op("faults::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


twice.register_autograd(lambda _, gradient: gradient * 2)

torch.manual_seed(0)
weight = torch.randn(4, 4, requires_grad=True)
first = torch.compile(lambda x: (x @ weight).tanh().square().mean(), dynamic=False)
second = torch.compile(lambda x: (x @ weight).sin().exp().sum(), dynamic=False)
own = torch.compile(lambda x: (twice(x @ weight)).tanh().square().mean(), dynamic=False)


def kernel_files() -> dict[str, str]:
    import triton
    from triton.backends.compiler import GPUTarget

    from benches.kernels.corpus import corpus

    kernel = next(kernel for kernel in corpus() if kernel.name == "vector_add")
    compiled = triton.compile(kernel.source(), target=GPUTarget("cuda", 90, 32), options=dict(kernel.options))
    files = compiled.metadata_group
    return {name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for name, path in sorted(files.items())}


result: dict[str, Any] = {}
functions = {"first": first, "second": second, "own": own}
forms = {"one": ["first"], "two": ["first", "second"], "own": ["own"], "all": ["first", "second", "own"], "kernel": []}
for name in forms[sys.argv[1]]:
    weight.grad = None
    loss = functions[name](torch.linspace(-1, 1, 12).reshape(3, 4))
    loss.backward()
    assert weight.grad is not None
    result[name] = [loss.item().hex(), *(number.hex() for number in weight.grad.flatten().tolist())]
if sys.argv[1] == "kernel":
    result["kernel"] = kernel_files()
print(json.dumps(result))
