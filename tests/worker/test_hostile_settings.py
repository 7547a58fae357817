"""No setting may name a program, a path or a function."""

from __future__ import annotations

from typing import Any

import pytest

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import tensor_value
from compiler_daemon.worker.settings import functorch_patch, inductor_patch
from tests.worker.worker_samples import TENSOR


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpp.cxx", "evil"),
        ("cpp.cxx", ["t", "evil", "g++"]),
        ("cuda.cuda_cxx", "evil"),
        ("cuda.cutlass_dir", "evil"),
        ("rocm.ck_dir", "evil"),
        ("trace.enabled", True),
        ("trace.upload_tar", "evil"),
        ("trace.debug_dir", "evil"),
        ("debug", True),
        ("worker_log_path", "evil"),
        ("global_cache_dir", "evil"),
        ("aot_inductor.output_path", "evil"),
        ("aot_inductor.package", True),
        ("aot_inductor.custom_op_libs", ["l", "evil"]),
        ("custom_partitioner_fn", "evil"),
        ("post_grad_custom_pre_pass", "evil"),
        ("post_grad_custom_post_pass", ["f", "torch.relu"]),
        ("joint_custom_pre_pass", "evil"),
        ("_pre_fusion_custom_pass", "evil"),
        ("_post_fusion_custom_pass", "evil"),
        ("inductor_choices_class", "evil"),
        ("autoheuristic_log_path", "evil"),
        ("profile_bandwidth_output", "evil"),
        ("fx_graph_remote_cache", True),
        ("autotune_remote_cache", True),
        ("_save_config_ignore", ["l"]),
        ("rocm.rocm_home", "evil"),
        ("xpu.oneapi_root", "evil"),
        ("aot_inductor.aoti_shim_library", "evil"),
        ("save_args", True),
        ("enabled_metric_tables", "kernel"),
        ("sleep_sec_TESTING_ONLY", 1_000_000.0),
        ("triton.proton_profiling", True),
        ("external_matmul", ["l", "evil"]),
        ("lookup_table.table", ["d", "a", 1]),
        ("test_configs.autotune_choice_name_regex", "evil"),
        ("cpp.threads", "evil"),
        ("max_autotune_gemm_backends", 1),
        ("max_autotune", "evil"),
        ("max_autotune", ["l"]),
        ("pre_grad_fusion_options", ["l"]),
        ("unsafe_marked_cacheable_functions", ["d", "os.system", "1"]),
        ("unsafe_marked_cacheable_functions", ["l", 1]),
        ("unsafe_marked_cacheable_functions", 5),
        ("unsafe_marked_cacheable_functions", None),
        ("no_such_setting", 1),
        ("__class__", 1),
        ("", 1),
        ("cpp", 1),
        ("max_autotune", ["f", "torch.relu"]),
        ("max_autotune", ["T", list(tensor_value(TENSOR)[1])]),
        ("max_autotune_gemm_backends", "ATEN; touch stranger"),
        ("max_autotune_gemm_backends", "../ATEN"),
        ("max_autotune_gemm_backends", "$(touch stranger)"),
        ("max_autotune_gemm_backends", "ATEN\n"),
        ("max_autotune_gemm_backends", "-fplugin=evil"),
        ("max_autotune_gemm_backends", "a" * 300),
    ],
)
def test_no_setting_names_a_program_a_place_or_a_function(name: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        inductor_patch({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_budget_pareto_dir", "evil"),
        ("visualize_memory_budget_pareto", True),
        ("fake_tensor_propagate_real_tensors", True),
        ("fake_tensor_crossref", True),
        ("generate_fake_kernels_from_real_mismatches", True),
        ("debug_partitioner", True),
        ("joint_custom_pass", "evil"),
        ("enable_remote_autograd_cache", True),
        ("_test_disable_functionalization", False),
        ("activation_memory_budget_solver", ["f", "torch.relu"]),
        ("no_such_setting", 1),
    ],
)
def test_no_setting_of_functorch_does_either(name: str, value: Any) -> None:
    with pytest.raises(MalformedError):
        functorch_patch({name: value})


def test_numbers_flags_and_words_may_be_chosen() -> None:
    chosen = {
        "max_autotune": True,
        "cpp.simdlen": 256,
        "cpp.min_chunk_size": 4096,
        "max_autotune_gemm_backends": "ATEN,CPP",
        "cpp.enable_floating_point_contract_flag": "fast",
    }

    assert inductor_patch(dict(chosen)) == chosen
    assert functorch_patch({"activation_memory_budget": 0.5}) == {"activation_memory_budget": 0.5}
