"""torch's switches for the whole process."""

from __future__ import annotations

from tests.twins.thing import BODIES, BOTH, Thing

_WIDE = """
y = torch.nn.functional.linear(x, w)
a = torch.nn.functional.scaled_dot_product_attention(y[None, None], x[None, None], x[None, None])
return torch.einsum("abij,jk,kl->il", a, w, w)
"""


_CONV = """
kernel = w.reshape(1, 1, 4, 4)[:, :, :3, :3]
return torch.nn.functional.conv2d(x[None, None], kernel, padding=1)[0, 0]
"""


def _switch(name: str, a: str, b: str, *, core: str = _WIDE, silent: bool = False) -> Thing:
    """Return twins with different values of a switch that one call or assignment sets, as `torch.set_num_threads`."""
    setup = f"{name}(pick({a}, {b}))" if not name.endswith("=") else f"{name} pick({a}, {b})"
    return Thing(
        name=name.removesuffix(" ="),
        kind="ambient state",
        differs=f"what {name.removesuffix(' =')} is set to: {a} or {b}",
        setup=setup,
        core=core,
        fits=("top", "checkpoint", "function"),
        parts=("switches",),
        silent=silent,
    )


_LARGE = "BIG = torch.sin(torch.arange(800_000, dtype=torch.float32).reshape(200_000, 4) * 0.37)"


SWITCHES = (
    Thing(
        name="threads",
        kind="ambient state",
        differs="the number of threads",
        setup=f"torch.set_num_threads(pick(1, 2))\n{_LARGE}",
        core="return torch.tanh(x @ w) + (BIG * w[0]).sum(dim=0)",
        fits=("top", "submodule", "checkpoint"),
        parts=("older_torch",),
    ),
    Thing(
        name="deterministic algorithms",
        kind="ambient state",
        differs="whether only deterministic algorithms are allowed",
        setup="""
torch.use_deterministic_algorithms(pick(False, True))
WHERE = torch.tensor([0, 1, 0])
""",
        core="return torch.zeros(3, 4).index_add(0, WHERE, x @ w) + x.cumsum(0)",
        fits=BODIES,
        silent=True,
    ),
    Thing(
        name="deterministic algorithms only warn",
        kind="ambient state",
        differs="whether an algorithm that is not deterministic is an error or a warning",
        setup="torch.use_deterministic_algorithms(True, warn_only=pick(False, True))",
        core="return (x @ w).put((x > 9).nonzero()[:, 0], x[0, :0], accumulate=True)",
        fits=("top", "checkpoint"),
        silent=True,
    ),
    Thing(
        name="fill of uninitialised memory",
        kind="ambient state",
        differs="whether uninitialised memory is filled",
        setup="torch.use_deterministic_algorithms(True)\n"
        "torch.utils.deterministic.fill_uninitialized_memory = pick(True, False)",
        core="return torch.empty_like(x).fill_(0.5) * (x @ w)",
        fits=BODIES,
        silent=True,
    ),
    Thing(
        name="denormal numbers",
        kind="ambient state",
        differs="whether denormal numbers are flushed to zero",
        setup="torch.set_flush_denormal(pick(False, True))",
        core='return (torch.full((4,), 1e-39, device="cpu") * 0.5 + torch.tanh(x @ w) * 1e-39) * 1e30',
        fits=("top", "checkpoint", "function"),
        times=BOTH,
        parts=("switches",),
    ),
    _switch(
        "torch.set_float32_matmul_precision",
        '"highest"',
        '"medium"',
        core="return torch.nn.functional.linear(x, w) @ w",
    ),
    _switch("torch.backends.mkldnn.set_flags", "True", "False", core=_CONV),
    _switch("torch.backends.cuda.enable_flash_sdp", "True", "False", silent=True),
    _switch("torch.backends.cuda.enable_math_sdp", "True", "False", silent=True),
    _switch("torch.backends.cuda.enable_mem_efficient_sdp", "True", "False", silent=True),
    _switch("torch.backends.cudnn.benchmark =", "False", "True", core=_CONV, silent=True),
    _switch("torch.backends.cudnn.enabled =", "True", "False", core=_CONV, silent=True),
    _switch("torch.backends.mha.set_fastpath_enabled", "True", "False", silent=True),
    _switch("torch.backends.opt_einsum.enabled =", "True", "False", silent=True),
    _switch(
        "torch.backends.mkldnn.matmul.fp32_precision =",
        '"ieee"',
        '"bf16"',
        core="return torch.nn.functional.linear(x, w) @ w",
    ),
    _switch("torch.backends.mkldnn.conv.fp32_precision =", '"ieee"', '"bf16"', core=_CONV, silent=True),
    _switch("torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction =", "True", "False", silent=True),
    _switch("torch.backends.nnpack.set_flags", "True", "False", core=_CONV, silent=True),
    _switch("torch.set_warn_always", "False", "True", silent=True),
    _switch("torch.set_num_interop_threads", "1", "2", silent=True),
)
