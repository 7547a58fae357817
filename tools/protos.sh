#!/usr/bin/env bash
# Generates the wire's stubs from the schema; with --check only says whether the ones checked in are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

out=proto
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
# The virtual path puts the stubs into compile_wire.v1 while the wire's names stay compiler_daemon.v1.
# shellcheck disable=SC2046  # each name is a word
python -m grpc_tools.protoc -Icompile_wire/v1=proto/compiler_daemon/v1 \
    --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
    $(cd proto/compiler_daemon/v1 && printf 'compile_wire/v1/%s ' *.proto)
if [ "$out" != proto ]; then
    diff -r --exclude=__pycache__ --exclude=__init__.py "$out/compile_wire/v1" proto/compile_wire/v1 || {
        echo "The stubs do not match the schema: run make protos and commit." >&2
        exit 1
    }
fi
