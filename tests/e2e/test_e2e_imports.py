"""The cost of imports, in modules and not in milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.e2e.conftest import clean_environment

_HEAVY = (
    "grpc",
    "google.protobuf",
    "torch",
    "rich",
    "msgpack",
    "psutil",
    "numpy",
    "compiler_daemon",
    "compile_torch",
    "compile_wire",
)
_OURS = ("compile_client", "compile_torch", "compile_wire", "compiler_daemon")


def modules_after(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        env=clean_environment(**environment),
        check=True,
        timeout=120,
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(modules: list[str]) -> list[str]:
    return [name for name in modules if name.split(".")[0] in _OURS]


def test_importing_the_client_imports_nothing_heavy() -> None:
    modules = modules_after("import compile_client")

    assert [name for name in modules if any(name == heavy or name.startswith(heavy + ".") for heavy in _HEAVY)] == []


def test_with_the_variable_unset_torch_brings_in_the_entry_points_module_alone() -> None:
    modules = modules_after("import torch, torch._inductor.compile_fx")

    assert ours(modules) == ["compile_client"]


def test_with_the_variable_set_importing_torch_arms_the_hook_and_no_more() -> None:
    modules = modules_after("import torch", TORCH_COMPILE_CLIENT="1")

    assert ours(modules) == [
        "compile_client",
        "compile_client.graphs",
        "compile_client.graphs.user_code",
        "compile_client.graphs.user_code.registrations",
        "compile_client.hooks",
        "compile_client.hooks.collector",
        "compile_client.hooks.import_hook",
        "compile_client.hooks.install",
        "compile_client.hooks.triton_hooks",
        "compile_client.session",
        "compile_client.session.process",
    ]
    assert "grpc" not in modules


def test_a_graph_with_nobody_listening_is_compiled_without_grpc() -> None:
    code = "import torch\ntorch.compile(lambda x: x + 1, backend='daemon')(torch.ones(2))"
    modules = modules_after(code, TORCH_COMPILE_CLIENT="1", COMPILER_DAEMON_DIR="/nonexistent/directory")

    assert "compile_client.hooks.torch_hooks" in modules
    assert "grpc" not in modules


def test_a_torch_whose_functions_have_changed_leaves_the_client_off() -> None:
    code = (
        "import torch._inductor.codecache as codecache\n"
        "codecache.write = lambda text, suffix: None\n"
        "import compile_client\n"
        "assert not compile_client.install()\n"
        "import torch._inductor.compile_fx as m\n"
        "assert not hasattr(m.compile_fx, '__wrapped__')\n"
    )

    assert "compile_client.hooks.torch_hooks" not in modules_after(code)
