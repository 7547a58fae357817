"""With which versions of torch dynamo's traces are put back, and what of dynamo must be as it was there.

Traces are bytecode and guards of one version of torch: what makes the guards again, installs the bytecode, names its
globals and loads its graphs is dynamo's own. Where one of these is another, every function is traced.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from compile_torch.versions import differing_signatures

TRACED = ((2, 13), (2, 14), (2, 15))
"""Versions of torch whose traces were put back, and compared with what torch traces."""


def unsupported_trace_reasons() -> list[str]:
    """Return in words what keeps traces from being put back here; empty where nothing does."""
    import torch

    if tuple(map(int, str(torch.__version__).split(".")[:2])) not in TRACED:
        return [f"putting traces back was not run with torch {torch.__version__}"]
    try:
        return [*differing_signatures(_functions()), *_differing_fields()]
    except (ImportError, AttributeError, TypeError) as error:
        return [f"torch has changed: {error}"]


def _functions() -> list[tuple[str, Any, list[str]]]:
    """Return every function that is replaced or called, with its parameters."""
    from torch._dynamo import (
        bytecode_transformation,
        cache_size,
        convert_frame,
        guards,
        output_graph,
        pgo,
        types,
        utils,
    )
    from torch._dynamo.resume_execution import ContinueExecutionCache
    from torch._functorch._aot_autograd.aot_autograd_result import GenericAOTAutogradResult
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache

    # What is read, and has no parameters; a name that is gone is an error here, and a reason.
    _ = (
        convert_frame.output_codes, convert_frame.initial_global_state, convert_frame._bytecode_hooks,
        utils.orig_code_map, utils.CleanupManager.instance, pgo.auto_dynamic, pgo.auto_unset, pgo.get_code_state,
    )  # fmt: skip
    known: list[tuple[str, Any, str]] = [
        ("convert_frame._compile", convert_frame._compile, _COMPILE),
        ("DynamoOutput.build_guards", convert_frame.DynamoOutput.build_guards, "self code hooks save cache_entries"),
        ("CheckFunctionManager", guards.CheckFunctionManager.__init__, _MANAGER),
        ("ContinueExecutionCache.lookup", ContinueExecutionCache.lookup, "code lineno init_offset key"),
        ("ContinueExecutionCache.generate", ContinueExecutionCache.generate, _GENERATE),
        ("wrap_post_compile", GenericAOTAutogradResult.wrap_post_compile, "self args aot_config fx_config"),
        ("AOTAutogradCache._lookup", AOTAutogradCache._lookup, "key local remote args cache_info aot_config"),
        ("exceeds_recompile_limit", cache_size.exceeds_recompile_limit, "cache_size compile_id"),
        ("wrap_guarded_code", types.wrap_guarded_code, "guarded_code"),
        ("GuardedCode", types.GuardedCode, "code guard_manager compile_id trace_annotation"),
        ("unique_id", bytecode_transformation.unique_id, "name with_uuid"),
        ("get_builtins_dict", output_graph.get_builtins_dict, "global_scope"),
        ("CleanupHook.create", utils.CleanupHook.create, "scope name val"),
        ("CodeId.make", pgo.CodeId.make, "code closure"),
    ]
    return [(name, function, parameters.split()) for name, function, parameters in known]


def _differing_fields() -> list[str]:
    """Return in words which of dynamo's values have not the fields that are filled in."""
    from torch._dynamo import guards, output_graph, pgo

    expected = (
        (output_graph.OutputGraphGuardsState, _STATE),
        (
            guards.ShapeCodeParts,
            "python_code_parts verbose_code_parts cpp_code_parts python_fallback shape_env_sources",
        ),
        (pgo.FrameStateSizeEntry, "scalar size stride"),
    )
    found = []
    for cls, names in expected:
        actual = [field.name for field in dataclasses.fields(cls)]
        if actual[: len(names.split())] != names.split():
            found.append(f"{cls.__name__} has {', '.join(actual)}, expected {', '.join(names.split())}")
    return found


_COMPILE = (
    "code globals locals builtins closure compiler_fn one_graph export export_constraints hooks cache_entry "
    "cache_entries cache_entries_for_reasons cache_size frame frame_state compile_id skip package"
)
_MANAGER = "self f_code output_graph cache_entries guard_fail_fn guard_filter_fn shape_code_parts"
_GENERATE = (
    "code lineno init_offset resume_offset setup_fn_target_offsets nstack argnames argnames_null setup_fns "
    "handle_inactive_ctx stack_ctx_vars argnames_ctx_vars null_idxes nested_code_objs pop_nested_resume_result"
)
_STATE = (
    "local_scope global_scope torch_function_mode_stack guard_on_key_order input_source_to_sizes_strides dual_level "
    "functorch_layers current_device global_state_guard _guards _aotautograd_guards export skip_guards_check "
    "export_constraints name_of_builtins_dict_key_in_fglobals"
)
