"""A trainer whose client is sabotaged. Its arguments say how, and give a size.

`nothing`: the installer installs nothing, so torch compiles again whatever the daemon has. `unseen`: the client's part
in torch's lookup does nothing either, as if the client had never been asked. `none`: the client is left as it should
be.
"""

import json
import sys

import torch
import torch._inductor.compile_fx  # the client hooks itself in at this import, before it is sabotaged

from compile_client.graphs import graph_compile, installer

mode, size = sys.argv[1], int(sys.argv[2])
if mode == "nothing":
    installer.Installer.install = lambda *_: None
elif mode == "unseen":
    graph_compile.GraphCompile.lookup_or_compile = lambda *_: None
torch.manual_seed(0)
model = torch.compile(torch.nn.Linear(8, size), dynamic=False)
model(torch.randn(size, 8)).sum().backward()
print(json.dumps(size))
