"""What inductor compiles with is imported late where traces may be skipped, and is the same once it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ARMED = """
import os, sys, threading, types
os.environ['TORCH_COMPILE_CLIENT_SKIP_TRACE'] = '1'
os.environ['TORCH_COMPILE_CLIENT_LOG'] = 'off'
os.environ |= {more}
import compile_client.hooks.install as client
client.arm()
import torch
late = lambda: [name for name in ('compile_fx', 'graph', 'select_algorithm', 'lowering')
    if type(sys.modules.get('torch._inductor.' + name)) is types.ModuleType]
"""


def test_torch_compile_alone_runs_none_of_it_and_its_first_compile_runs_all() -> None:
    said = _run(
        "compiled = torch.compile(torch.nn.Linear(2, 2))",
        "settings = compiled.get_compiler_config()",
        "print(late())",
        "import torch._inductor.compile_fx as before",
        "print(late(), type(before).__name__, 'get_compiler_config' in dir(compiled))",
        "from torch._inductor.compile_fx import compile_fx, get_patched_config_dict",
        "print(late(), before is sys.modules['torch._inductor.compile_fx'], type(before).__name__)",
        "print(compile_fx.__module__, compile_fx is not compile_fx.__wrapped__, client._patches is not None)",
        "print(settings == get_patched_config_dict({}) == get_patched_config_dict(None))",
    )
    assert said == [
        "[]",
        "[] _LateModule True",
        "['compile_fx', 'graph', 'select_algorithm', 'lowering'] True module",
        "torch._inductor.compile_fx True True",
        "True",
    ]


def test_without_imports_all_of_it_is_run_at_once_and_with_settings_of_a_mode_their_module_is() -> None:
    at_once = _run("torch.compile(torch.nn.Linear(2, 2))", "print(late())", WITHOUT="imports")
    off = _run("torch.compile(torch.nn.Linear(2, 2))", "print(late())", SKIP_TRACE="0")
    assert at_once == off == ["['compile_fx', 'graph', 'select_algorithm', 'lowering']"]

    of_a_mode = _run(
        "given = torch.compile(torch.nn.Linear(2, 2), options={'max_autotune': True}).get_compiler_config()",
        "from torch._inductor.compile_fx import get_patched_config_dict",
        "print(given == get_patched_config_dict({'max_autotune': True}), given['max_autotune'])",
    )
    assert of_a_mode == ["True True"]


def test_what_generated_code_gets_is_what_inductor_has_under_that_name(tmp_path: Path) -> None:
    said = _run(
        "import torch._inductor.codecache, torch._inductor.runtime.compile_tasks as tasks",
        f"path = {str(tmp_path)!r} + '/generated.py'",
        "line = 'from torch._inductor.select_algorithm import extern_kernels\\n'",
        "open(path, 'w').write(line)",
        "early = tasks._reload_python_module('abc', path).extern_kernels",
        "print(late())",
        "open(path, 'w').write(line + 'found = lambda: torch.ops.bucketing.found\\n')",
        "torch._inductor.select_algorithm  # the package's",
        "real = tasks._reload_python_module('abd', path).extern_kernels",
        "print(late(), early is real)",
        "print([name for name in vars(early) if name[0] != '_' and getattr(early, name) is not getattr(real, name)])",
        "print(sorted(name for name in vars(early) if name[0] != '_'), early.bias_addmm is real.bias_addmm)",
        "from torch._inductor.graph import GraphLowering",
        "print(GraphLowering.save_output_code)",
    )
    assert said == [
        "[]",
        "['select_algorithm', 'lowering'] False",
        "[]",
        "['addmm', 'baddbmm', 'bmm', 'convolution', 'mm'] True",
        "None",
    ]


def test_an_entry_names_the_table_of_decompositions_and_so_does_its_pickle_again() -> None:
    said = _run(
        "import pickle, torch._inductor.codecache as codecache",
        "program = 'def iterate_over_candidates(content): return pickle.loads(content)'",
        "exec(program, vars(codecache))",
        "name = b'ctorch._inductor.decomposition\\nselect_decomp_table\\n.'",
        "early = codecache.iterate_over_candidates(name)",
        "print(type(early).__name__, 'torch._inductor.lowering' in sys.modules)",
        "again = pickle.dumps(early)",
        "print(type(sys.modules['torch._inductor.decomposition']).__name__)",
        "real = pickle.loads(again)",
        "print(real is torch._inductor.decomposition.select_decomp_table, early() is real())",
    )
    assert said == ["_Table False", "_LateModule", "True True"]


def test_other_modules_of_inductors_are_there_as_if_it_had_been_imported() -> None:
    said = _run(
        "torch.compile(torch.nn.Linear(2, 2))",
        "print(torch._inductor.debug.__name__, hasattr(torch._inductor, 'nothing'), late())",
    )
    assert said == ["torch._inductor.debug False []"]


def test_threads_that_need_it_at_once_all_get_the_whole_module_and_what_is_set_on_it_stays() -> None:
    said = _run(
        "torch.compile(torch.nn.Linear(2, 2))",
        "import torch._inductor.compile_fx as module",
        "found = []",
        "ask = lambda: found.append(module.compile_fx_inner)",
        "threads = [threading.Thread(target=ask) for _ in range(8)]",
        "[one.start() for one in threads]; [one.join() for one in threads]",
        "print(len(found), len(set(found)))",
        "import torch._inductor.graph as graph",
        "graph.added = 1",
        "print(graph.added, type(graph).__name__)",
    )
    assert said == ["8 1", "1 module"]


def test_an_inductor_of_another_version_is_imported_as_always() -> None:
    said = _run("torch.__version__ = '2.13.1'", "torch.compile(torch.nn.Linear(2, 2))", "print(late())")
    assert said == ["['compile_fx', 'graph', 'select_algorithm', 'lowering']"]


def test_where_compile_fx_is_not_as_known_the_client_is_off_from_there_on() -> None:
    said = _run(
        "torch.compile(torch.nn.Linear(2, 2))",
        "from compile_torch import versions",
        "versions.unsupported_compile_reasons = lambda: ['torch has changed: something']",
        "from torch._inductor.compile_fx import compile_fx",
        "print(client._patches, hasattr(compile_fx, '__wrapped__'))",
    )
    assert said == ["None False"]


def _run(*lines: str, **more: str) -> list[str]:
    program = ARMED.replace("{more}", repr({f"TORCH_COMPILE_CLIENT_{name}": value for name, value in more.items()}))
    done = subprocess.run(
        [sys.executable, "-c", program + "\n".join(lines)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()
