#!/usr/bin/env bash
# Prints the torch that set-up takes, as a requirement: torch_to_install.sh PYTHON, which has pip.
#
# What TORCH names, if it names one. With a GPU the newest that is supported. Without one the newest CPU build that pip is
# offered, since what PyPI has for Linux brings gigabytes of CUDA; that one only where there is no other. uv asks PyTorch's
# own CPU index where the user says so: UV_TORCH_BACKEND=cpu make .venv
set -euo pipefail

supported="2.15.0 2.14.1 2.13.0"
newest=${supported%% *}
if [ -n "${TORCH:-}" ]; then
    echo "torch==$TORCH"
elif [ -n "${UV_TORCH_BACKEND:-}" ] || { command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; }; then
    echo "torch==$newest"
else
    for version in $supported; do
        # Nothing is installed: pip only looks whether there is one.
        if "$1" -m pip install --quiet --dry-run --no-deps --ignore-installed "torch==$version+cpu" > /dev/null 2>&1; then
            echo "torch==$version+cpu"
            exit
        fi
    done
    echo "pip is offered no CPU build of torch: what follows is about 5 GB. PyTorch's index of CPU builds, given to pip" >&2
    echo "by PIP_EXTRA_INDEX_URL, makes it smaller." >&2
    echo "torch==$newest"
fi
