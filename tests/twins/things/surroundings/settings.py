"""The configuration of inductor, functorch and dynamo, and environment variables that torch reads."""

from __future__ import annotations

from tests.twins.thing import Position, Thing

_SUM = "return torch.tanh(x @ w).bfloat16().float() * torch.rsqrt(x * x + 1) + x.sum(0)"
_SOME: tuple[Position, ...] = ("top", "submodule", "checkpoint", "function")


def _config(
    name: str,
    a: str,
    b: str,
    *,
    module: str = "torch._inductor.config",
    core: str = _SUM,
    silent: bool = True,
    fits: tuple[Position, ...] = _SOME,
) -> Thing:
    short = module.removeprefix("torch.").removeprefix("_").removesuffix(".config")
    return Thing(
        name=f"{short}.{name}",
        kind="configuration",
        differs=f"{name} of {module}: {a} or {b}",
        setup=f"import {module}\n\n{module}.{name} = pick({a}, {b})",
        core=core,
        fits=fits,
        parts=("settings",) if module != "torch._inductor.config" else (),
        silent=silent,
    )


def _options(name: str, options: str, differs: str, *, core: str = _SUM, silent: bool = True) -> Thing:
    return Thing(
        name=name, kind="configuration", differs=differs, options=(options,), core=core, fits=_SOME, silent=silent
    )


_FUNCTORCH = "torch._functorch.config"
_DYNAMO = "torch._dynamo.config"
_RANDOM = "return (x @ w) * torch.rand_like(x) + torch.rand(4, device='cpu')"

_CONFIGURATION = (
    _config("fallback_random", "False", "True", core=_RANDOM, silent=False),
    _config(
        "emulate_precision_casts", "False", "True", core="return ((x @ w).bfloat16() * 3 + 1).float()", silent=False
    ),
    _config("cpp.enable_floating_point_contract_flag", '"off"', '"fast"', core="return (x @ w) * 1.1 + x * 0.3"),
    _config("cpp.enable_unsafe_math_opt_flag", "False", "True"),
    _config("cpp.simdlen", "None", "1"),
    _config("cpp.threads", "1", "2"),
    _config("cpp.min_chunk_size", "512", "1"),
    _config("pattern_matcher", "True", "False"),
    _config("epilogue_fusion", "True", "False"),
    _config("max_fusion_size", "64", "1"),
    _config("nan_asserts", "False", "True"),
    _config("size_asserts", "True", "False"),
    _config("keep_output_stride", "True", "False", core="return torch.tanh((x @ w).t()).t()"),
    _config("split_reductions", "True", "False"),
    _config("joint_graph_constant_folding", "True", "False"),
    _config("allow_buffer_reuse", "True", "False"),
    _config("implicit_fallbacks", "True", "False"),
    _config("comment_origin", "False", "True"),
    _config("freezing", "False", "True"),
    _config("force_disable_caches", "False", "True"),
    _config("fx_graph_cache", "True", "False"),
    _config("activation_memory_budget", "1.0", "0.5", module=_FUNCTORCH),
    _config("donated_buffer", "True", "False", module=_FUNCTORCH),
    _config("recompute_views", "False", "True", module=_FUNCTORCH),
    _config("cse", "True", "False", module=_FUNCTORCH),
    _config("functionalize_rng_ops", "False", "True", module=_FUNCTORCH, core=_RANDOM),
    _config("enable_autograd_cache", "True", "False", module=_FUNCTORCH),
    _config("bundled_autograd_cache", "False", "True", module=_FUNCTORCH),
    _config("specialize_float", "False", "True", module=_DYNAMO),
    _config("inline_inbuilt_nn_modules", "True", "False", module=_DYNAMO),
    _config("prefer_deferred_runtime_asserts_over_guards", "False", "True", module=_DYNAMO),
    _config("fake_tensor_cache_enabled", "True", "False", module=_DYNAMO),
    _options(
        "options of a compile",
        "options={'epilogue_fusion': pick(True, False), 'fallback_random': pick(False, True)}",
        "the options that torch.compile is given",
        core=_RANDOM,
        silent=False,
    ),
    _options("mode", "mode=pick('default', 'max-autotune-no-cudagraphs')", "the mode of torch.compile"),
    _options("backend", "backend=pick('inductor', 'aot_eager')", "the backend of torch.compile"),
    _options(
        "a caller's own threads",
        "options={'cpp.threads': pick(1, 2)}",
        "the number of threads that code is written for",
    ),
)


def _variable(name: str, a: str, b: str, *, core: str = _SUM, silent: bool = True) -> Thing:
    return Thing(
        name=name,
        kind="environment variable",
        differs=f"the variable {name}: {a or 'not set'} or {b}",
        environment={"A": {name: a} if a else {}, "B": {name: b}},
        fresh=True,
        core=core,
        fits=("top", "checkpoint"),
        parts=("variables",),
        silent=silent,
    )


_VARIABLES = (
    _variable("OMP_NUM_THREADS", "1", "2"),
    _variable("ATEN_CPU_CAPABILITY", "", "default"),
    _variable("TORCHINDUCTOR_FREEZING", "0", "1"),
    _variable(
        "TORCHINDUCTOR_CPP_ENABLE_FLOATING_POINT_CONTRACT_FLAG", "off", "fast", core="return (x @ w) * 1.1 + x * 0.3"
    ),
    _variable("TORCHINDUCTOR_EMULATE_PRECISION_CASTS", "0", "1", core="return ((x @ w).bfloat16() * 3 + 1).float()"),
    _variable("TORCHINDUCTOR_NAN_ASSERTS", "0", "1"),
    _variable("TORCHINDUCTOR_SIZE_ASSERTS", "1", "0"),
    _variable("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "0", "1"),
    _variable("TORCHINDUCTOR_MAX_AUTOTUNE", "0", "1"),
    _variable("TORCHINDUCTOR_CPP_WRAPPER", "0", "1"),
    _variable("TORCHDYNAMO_AUTOMATIC_DYNAMIC_SHAPES", "1", "0"),
    _variable("TORCH_COMPILE_CACHE_KEY_TAG", "one", "two"),
    _variable("CXXFLAGS", "", "-DTWINS"),
    _variable("TORCHINDUCTOR_CPP_MIN_CHUNK_SIZE", "512", "1"),
    _variable("TORCH_FX_DISABLE_CACHE", "", "1"),
    _variable("AOT_PARTITIONER_DEBUG", "", "1"),
    _variable("PYTHONOPTIMIZE", "", "1"),
)

SETTINGS = (*_CONFIGURATION, *_VARIABLES)
