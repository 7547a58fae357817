"""Defaults, autocast and modes, which are in force around a call and appear in no graph."""

from __future__ import annotations

from tests.twins.thing import ALL, BODIES, BOTH, Thing

_WIDE = """
y = torch.nn.functional.linear(x, w)
a = torch.nn.functional.scaled_dot_product_attention(y[None, None], x[None, None], x[None, None])
return torch.einsum("abij,jk,kl->il", a, w, w)
"""


def _around(name: str, differs: str, line: str, *, core: str = _WIDE, setup: str = "", silent: bool = False) -> Thing:
    return Thing(
        name=name,
        kind="ambient state",
        differs=differs,
        around=line,
        core=core,
        setup=setup,
        fits=BODIES,
        silent=silent,
    )


_DTYPES = (
    Thing(
        name="default dtype",
        kind="ambient state",
        differs="torch's default dtype",
        setup="torch.set_default_dtype(pick(torch.float32, torch.float64))",
        core='return x @ w * torch.linspace(0.1, 0.7, 4, device="cpu").float()',
        fits=ALL,
        times=BOTH,
    ),
    Thing(
        name="default dtype of what is returned",
        kind="ambient state",
        differs="torch's default dtype, which the result takes",
        setup="torch.set_default_dtype(pick(torch.float32, torch.bfloat16))",
        core="return torch.tanh(x @ w) * torch.tensor([0.1, 0.2, 0.3, 0.7]) + torch.arange(0.1, 0.5, 0.1).double()",
        fits=("top", "submodule", "checkpoint", "region"),
    ),
    Thing(
        name="default device",
        kind="ambient state",
        differs="torch's default device: the CPU, or none is set",
        setup='torch.set_default_device(pick(None, "cpu"))',
        core="return x @ w * torch.ones(4)",
        fits=ALL,
        times=BOTH,
        silent=True,
    ),
    Thing(
        name="default device is meta",
        kind="ambient state",
        differs="torch's default device: none is set, or it is meta",
        setup='torch.set_default_device(pick(None, "meta"))',
        core="return torch.tanh(x @ w) + torch.ones(4).numel()",
        fits=BODIES,
        silent=True,
    ),
    Thing(
        name="device context",
        kind="ambient state",
        differs="the device that a `with torch.device` around the call names",
        around='with torch.device(pick("cpu", "meta")):',
        core="return x @ w + torch.ones(4).sum()",
        fits=("top", "submodule"),
    ),
)


_AUTOCAST = (
    Thing(
        name="autocast dtype, autocast off",
        kind="ambient state",
        differs="the process's autocast dtype; autocast is entered without one inside of the graph",
        setup='torch.set_autocast_dtype("cpu", pick(torch.bfloat16, torch.float16))',
        core="""
        with torch.autocast("cpu"):
            y = x @ w
        return y.float()
        """,
        fits=("top", "submodule", "checkpoint", "function", "region"),
        times=BOTH,
        parts=("autocast",),
    ),
    Thing(
        name="autocast dtype, autocast on",
        kind="ambient state",
        differs="the dtype of the autocast around the call",
        around='with torch.autocast("cpu", dtype=pick(torch.bfloat16, torch.float16)):',
        fits=ALL,
        times=BOTH,
    ),
    Thing(
        name="autocast on",
        kind="ambient state",
        differs="whether autocast is on around the call",
        around='with torch.autocast("cpu", dtype=torch.bfloat16, enabled=pick(False, True)):',
        fits=ALL,
        times=BOTH,
    ),
    Thing(
        name="autocast left for the backward",
        kind="ambient state",
        differs="whether the gradient is taken inside of autocast, too",
        drive="""
        for rows in ROWS:
            x, w = inputs(rows)
            with account.step(f"{rows} rows"):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    y = run(x, w)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=pick(False, True)):
                    learn(y)
                account.tell(y=y, dx=x.grad, dw=w.grad)
        """,
        fits=BODIES,
        silent=True,
    ),
    Thing(
        name="autocast's cache of casts",
        kind="ambient state",
        differs="whether autocast keeps its casts",
        setup="torch.set_autocast_cache_enabled(pick(True, False))",
        around='with torch.autocast("cpu", dtype=torch.bfloat16):',
        core="return torch.tanh(x @ w) @ w",
        fits=BODIES,
        silent=True,
    ),
    Thing(
        name="autocast of another device",
        kind="ambient state",
        differs="whether autocast is on for CUDA, which is not used",
        around='with torch.autocast("cuda", dtype=torch.bfloat16, enabled=pick(False, True)):',
        fits=("top",),
        silent=True,
    ),
)


_MODES = (
    _around("grad mode", "whether gradients are recorded", "with torch.set_grad_enabled(pick(True, False)):"),
    _around(
        "no_grad in the graph",
        "whether a part is under no_grad",
        "if True:",
        core="""
        with torch.set_grad_enabled(GRAD):
            y = x @ w
        return torch.tanh(y) * x
        """,
        setup="GRAD = pick(True, False)",
    ),
    _around("inference mode", "whether inference mode is on", "with torch.inference_mode(pick(False, True)):"),
    _around(
        "anomaly mode",
        "whether anomalies are looked for",
        "with torch.autograd.set_detect_anomaly(pick(False, True)):",
        core="return (x @ w).abs().sqrt()",
        silent=True,
    ),
    _around(
        "saved-tensor hooks",
        "whether what is saved goes through hooks",
        "with torch.autograd.graph.saved_tensors_hooks(pick(lambda t: t, lambda t: t * 2), lambda t: t):",
        core="return torch.sin(torch.sin(x @ w))",
    ),
    _around(
        "save_on_cpu",
        "whether what is saved goes to the CPU",
        "with pick(torch.autograd.graph.save_on_cpu(), torch.enable_grad()):",
        core="return torch.sin(torch.sin(x @ w))",
        silent=True,
    ),
    _around(
        "compiled autograd",
        "whether the backward is compiled anew by compiled autograd",
        "with torch._dynamo.config.patch(compiled_autograd=pick(False, True)):",
        silent=True,
    ),
    _around(
        "multithreaded backward",
        "whether autograd has threads",
        "with torch.autograd.set_multithreading_enabled(pick(True, False)):",
        silent=True,
    ),
    _around(
        "attention in a context",
        "which implementation of attention is allowed",
        "with torch.nn.attention.sdpa_kernel("
        "pick(torch.nn.attention.SDPBackend.MATH, torch.nn.attention.SDPBackend.FLASH_ATTENTION)):",
        setup="import torch.nn.attention",
    ),
    _around(
        "forward gradients",
        "whether a level of forward gradients is open",
        "with pick(torch.enable_grad(), torch.autograd.forward_ad.dual_level()):",
        silent=True,
    ),
    _around(
        "function mode",
        "what a function mode around the call makes of tanh",
        "with Mode():",
        core="return torch.tanh(x @ w)",
        setup="""
from torch.overrides import TorchFunctionMode


class Mode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.tanh:
            func = pick(torch.sin, torch.cos)
        return func(*args, **(kwargs or {}))
""",
    ),
    _around(
        "dispatch mode",
        "whether a dispatch mode is around the call",
        "with pick(torch.enable_grad(), Mode()):",
        setup="""
from torch.utils._python_dispatch import TorchDispatchMode


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))
""",
        silent=True,
    ),
    Thing(
        name="levels of functorch",
        kind="ambient state",
        differs="whether the compiled function is called under vmap",
        drive="""
        x, w = inputs(3)
        with account.step("call"):
            y = pick(lambda: run(x, w), lambda: torch.vmap(run, (0, None))(x[None], w))()
            account.tell(y=y.reshape(3, 4))
        """,
        fits=("top", "submodule"),
        silent=True,
    ),
    Thing(
        name="stance",
        kind="ambient state",
        differs="the stance: compile, or run eagerly when a second graph would be needed",
        drive="""
        torch.compiler.set_stance(pick("default", "eager_on_recompile"))
        for rows in (3, 5, 7):
            x, w = inputs(rows)
            with account.step(f"{rows} rows"):
                y = run(x, w)
                learn(y)
                account.tell(y=y, dx=x.grad, dw=w.grad)
        """,
        fits=("top", "checkpoint"),
        times=("static", "dynamic", "automatic"),
        silent=True,
    ),
)


AMBIENT = (*_DTYPES, *_AUTOCAST, *_MODES)
