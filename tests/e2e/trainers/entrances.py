"""All ways to ask for a compile: backend "daemon", mode, options, and switching the client off in between."""

import json

import torch

import compile_client

x = torch.linspace(0, 1, 12)


def counted(function: object) -> dict[str, int]:
    torch._dynamo.reset()
    before = compile_client.counters()
    result = function(x)  # type: ignore[operator] # what torch.compile returns
    after = compile_client.counters()
    names = ("graphs", "compiled_by_daemon", "compiled_here", "hits")
    return {name: after[name] - before[name] for name in names} | {"sum": float(result.sum())}


compile_client.install()
rows = {
    "plain": counted(torch.compile(lambda x: x.sin() + 1)),
    "backend": counted(torch.compile(lambda x: x.sin() + 2, backend="daemon")),
    "backend_options": counted(
        torch.compile(lambda x: x.sin() + 3, backend="daemon", options={"epilogue_fusion": False})
    ),
    "mode": counted(torch.compile(lambda x: x.sin() + 4, mode="max-autotune-no-cudagraphs")),
    "options": counted(torch.compile(lambda x: x.sin() + 5, options={"max_fusion_size": 8})),
}
compile_client.uninstall()
rows["off"] = counted(torch.compile(lambda x: x.sin() + 6))
compile_client.install()
rows["on_again"] = counted(torch.compile(lambda x: x.sin() + 7))
print(json.dumps(rows))
