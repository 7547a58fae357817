"""The daemon passes some of its environment variables on to workers, and keeps others back."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile_torch.key.compile_reads import VARIABLES
from compile_torch.key.triton_reads import TRITON_VARIABLES
from compiler_daemon.workers.process import WorkerSlot
from compiler_daemon.workers.variables import WORKER_VARIABLES, kept_variables, named_variables

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "1",
    "GITHUB_TOKEN": "2",
    "HF_TOKEN": "3",
    "WANDB_API_KEY": "4",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "DATABASE_URL": "postgres://u:p@h/d",
    "https_proxy": "http://user:password@proxy",
    "SOMETHING_OF_MINE": "5",
}
NEEDED = {"PATH": "/usr/bin", "LC_ALL": "C", "CXX": "g++-13", "LD_LIBRARY_PATH": "/opt/lib", "OMP_NUM_THREADS": "2"}

FLAGS_OF_TRITONS = (
    "ALLOW_LHS_TMEM_LAYOUT_CONVERSION DISABLE_LLVM_OPT DISABLE_MMA_V3 DISABLE_MMA_V5 DISABLE_PTXAS_OPT".split()
)


def slot(variables: tuple[str, ...] = ()) -> WorkerSlot:
    return WorkerSlot(
        interpreter="python",
        kind="graphs",
        scratch=Path("/scratch"),
        log=Path("/log"),
        headers=Path("/headers"),
        order=None,
        variables=variables,
    )


def test_a_worker_gets_what_compilers_need_and_nothing_that_could_be_secret() -> None:
    environ = slot().environ(SECRETS | NEEDED | {"TORCH_LOGS": "all", "COMPILER_DAEMON_DIR": "/home"})

    assert environ.items() >= NEEDED.items()
    assert not environ.keys() & (SECRETS.keys() | {"TORCH_LOGS", "COMPILER_DAEMON_DIR"})


def test_a_worker_gets_what_the_daemons_user_names() -> None:
    named = named_variables({WORKER_VARIABLES: "SOMETHING_*, HF_TOKEN,"})

    environ = slot(named).environ(SECRETS)

    assert environ.keys() & SECRETS.keys() == {"SOMETHING_OF_MINE", "HF_TOKEN"}
    assert named_variables({}) == ()


def test_what_else_triton_reads_stays_with_the_trainer_until_the_daemons_user_names_it() -> None:
    shell = {"AMDGCN_USE_BUFFER_OPS": "0"}

    assert not slot().environ(shell).keys() & shell.keys()
    assert slot(("AMDGCN_*",)).environ(shell).items() >= shell.items()


def test_nobody_can_name_what_would_make_a_worker_a_client_or_choose_its_torchs_settings() -> None:
    shell = {"TORCH_COMPILE_CLIENT": "1", "TORCH_LOGS": "all", "COMPILER_DAEMON_DIR": "/home", "TRITON_INTERPRET": "1"}

    assert not slot(("*",)).environ(shell).keys() & shell.keys()


@pytest.mark.parametrize("name", sorted(VARIABLES - TRITON_VARIABLES) + FLAGS_OF_TRITONS)
def test_what_decides_what_is_made_of_a_graph_reaches_the_worker(name: str) -> None:
    if not name.startswith(("TORCH", "TRITON")):  # these settings come with each graph
        assert kept_variables({name: "1"}) == {name: "1"}
