#!/usr/bin/env bash
# What the daemon does for a GPU, checked in under ten minutes, without a network: see benches/gpu/__main__.py.
#
#   benches/gpu_check.sh [options of benches.gpu_check]     e.g. --device cpu: a rehearsal without a GPU
#
# PYTHON  the interpreter that has torch (default: python)
# OUT     folder for gpu_check.json (default: benches/results/gpu)
# WHEELS  folder of wheels from which missing packages are put into a folder of this run
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}
out=${OUT:-$here/benches/results/gpu}
export PYTHONPATH=$here:$here/proto${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1 # what lies in the folder it is started from is not imported

command -v "$python" >/dev/null || { echo "gpu_check: no $python: set PYTHON to an interpreter that has torch" >&2; exit 2; }

missing() {
    "$python" - <<'PY'
from importlib.util import find_spec

needed = {
    "torch": "torch", "grpc": "grpcio", "grpc_health": "grpcio-health-checking", "google.protobuf": "protobuf",
    "msgpack": "msgpack", "psutil": "psutil", "rich": "rich", "typer": "typer", "triton": "triton",
}


def is_there(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


print(*(package for module, package in needed.items() if not is_there(module)))
PY
}

lacking=$(missing)
if [ -n "$lacking" ] && [ -n "${WHEELS:-}" ]; then
    added=$(mktemp -d)
    trap 'rm -rf "$added"' EXIT
    # shellcheck disable=SC2086  # a list of names
    "$python" -m pip install --quiet --no-index --find-links "$WHEELS" --target "$added" $lacking
    export PYTHONPATH=$PYTHONPATH:$added
    lacking=$(missing)
fi
if [ -n "$lacking" ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "gpu_check: $python lacks $lacking: where there is a network, run" \
        "'pip download --only-binary=:all: --python-version $version --dest wheels $lacking'," \
        "bring the folder here, and set WHEELS to it" >&2
    exit 2
fi

"$python" -m benches.gpu_check --out "$out/gpu_check.json" "$@"
