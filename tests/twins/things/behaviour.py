"""What programs do with a compiled graph: a daemon may change nothing of it, nor where it ends in an error."""

from __future__ import annotations

import textwrap

from tests.twins.thing import Position, Thing

_DEEP = "return torch.tanh(torch.sin(torch.tanh(x @ w)) @ w)"
_FITS: tuple[Position, ...] = ("top", "submodule", "checkpoint", "function", "region")
_DRIVE = """
def ordinary(x, w, number):
    y = run(x, w)
    account.tell(y=y)
    learn(y)
    account.tell(dx=x.grad, dw=w.grad)


def otherwise(x, w, number):
DOING


for number in range(3):
    with account.step(f"step {number}"):
        pick(ordinary, otherwise)(*inputs(3), number)
"""


def _behaviour(
    name: str,
    differs: str,
    doing: str,
    *,
    setup: str = "",
    core: str = _DEEP,
    fits: tuple[Position, ...] = _FITS,
    parts: tuple[str, ...] = (),
    fullgraph: bool = True,
) -> Thing:
    """B does it, A takes its gradients as most do."""
    return Thing(
        name=name,
        kind="same behaviour",
        differs=f"whether {differs}",
        setup=setup,
        core=core,
        drive=_DRIVE.replace("DOING", textwrap.indent(textwrap.dedent(doing).strip("\n"), "    ")),
        fits=fits,
        parts=parts,
        fullgraph=fullgraph,
        silent=True,
    )


_GRADIENTS = (
    _behaviour("graph kept", "the graph is kept and used twice", """
        y = run(x, w)
        learn(y, retain_graph=True)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """, parts=("settings",)),
    _behaviour("two gradients before the backward", "two gradients are taken of one graph before the backward", """
        y = run(x, w)
        (a,) = torch.autograd.grad(y.square().mean(), w, retain_graph=True)
        (b,) = torch.autograd.grad(y.sum(), w, retain_graph=True)
        (y * (a.norm() / b.norm()).detach()).sum().backward()
        account.tell(y=y, a=a, b=b, dx=x.grad, dw=w.grad)
    """, parts=("settings",)),
    _behaviour("graph kept late", "the graph is kept, but not from the first step on", """
        y = run(x, w)
        learn(y, retain_graph=number > 0)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        if number > 0:
            learn(y)
            account.tell(dx=x.grad, dw=w.grad)
    """),
    _behaviour("graph freed", "the graph is used again after it was freed", """
        y = run(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        learn(y)
    """),
    _behaviour("gradient of a gradient", "a gradient of the gradient is wanted", """
        y = run(x, w)
        (a,) = torch.autograd.grad(y.square().sum(), w, create_graph=True)
        account.tell(y=y, a=a)
        a.square().sum().backward()
        account.tell(dx=x.grad, dw=w.grad)
    """),
    _behaviour("create_graph alone", "the gradient could be differentiated, but is not", """
        y = run(x, w)
        learn(y, create_graph=True)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("gradient of a part", "only one gradient is wanted", """
        y = run(x, w)
        account.tell(y=y, dw=torch.autograd.grad(y.square().sum(), [w])[0])
    """),
    _behaviour("gradient for one input", "only one input takes a gradient", """
        y = run(x.detach(), w)
        learn(y)
        account.tell(y=y, dw=w.grad)
    """),
    _behaviour("no gradient", "no gradient is taken", "account.tell(y=run(x, w))"),
    _behaviour("inference first", "the first step is without gradients", """
        with torch.set_grad_enabled(number > 0):
            y = run(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("inference mode last", "the last step is in inference mode", """
        if number < 2:
            return ordinary(x, w, number)
        with torch.inference_mode():
            account.tell(y=run(x, w))
    """),
    _behaviour("two forwards, two backwards", "two graphs are alive at once", """
        y, z = run(x, w), run(x * 2, w)
        learn(z)
        learn(y)
        account.tell(y=y, z=z, dx=x.grad, dw=w.grad)
    """),
    _behaviour("gradients that add up", "gradients are added to former ones", """
        for _ in range(2):
            learn(run(x, w))
        account.tell(dx=x.grad, dw=w.grad)
    """),
    _behaviour("backward for some inputs", "backward is told for which inputs", """
        y = run(x, w)
        y.square().sum().backward(inputs=[x])
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("backward in another thread", "the backward runs in another thread", """
        import threading

        y = run(x, w)
        thread = threading.Thread(target=learn, args=(y,))
        thread.start()
        thread.join()
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("gradient of other strides", "the incoming gradient has other strides", """
        y = run(x, w)
        y.backward(torch.ones(4, 3).t() * 0.5)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("gradient that is expanded", "the incoming gradient has strides of zero", """
        y = run(x, w)
        y.sum().backward()
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("anomalies are looked for", "anomalies are looked for from the second step on", """
        with torch.autograd.set_detect_anomaly(number > 0):
            ordinary(x, w, number)
    """),
)

_HOOKS = (
    _behaviour("hook on an input", "there is a hook on an input", """
        w.register_hook(lambda grad: grad * 3)
        ordinary(x, w, number)
    """),
    _behaviour("hook on the output", "there is a hook on the output", """
        y = run(x, w)
        y.register_hook(lambda grad: grad * 3)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("hook after accumulation", "there is a hook after accumulation", """
        seen = []
        w.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
        ordinary(x, w, number)
        account.tell(seen=seen)
    """),
    _behaviour("hook on the graph's node", "there is a hook on the node of the graph", """
        seen = []
        y = run(x, w)
        y.grad_fn.register_hook(lambda into, out: seen.append(len(into)))
        learn(y)
        account.tell(y=y, seen=seen, dx=x.grad, dw=w.grad)
    """),
    _behaviour("a hook that raises", "a hook raises an error at the second step", """
        def hook(grad):
            if number == 1:
                raise KeyError("no gradient today")

        y = run(x, w)
        y.register_hook(hook)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("saved tensors packed", "saved tensors go through hooks", """
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.double(), lambda t: t.float()):
            ordinary(x, w, number)
    """),
    _behaviour("saved tensors on the CPU", "saved tensors are kept by save_on_cpu", """
        with torch.autograd.graph.save_on_cpu():
            ordinary(x, w, number)
    """),
    _behaviour("saved tensors counted", "saved tensors are looked at", """
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(list(t.shape)) or t, lambda t: t):
            ordinary(x, w, number)
        account.tell(seen=sorted(seen))
    """),
    _behaviour("no saved tensors allowed", "saving tensors is forbidden", """
        with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
            ordinary(x, w, number)
    """),
    _behaviour("checkpoint around", "the compiled function is called in a checkpoint", """
        from torch.utils.checkpoint import checkpoint

        y = checkpoint(run, x, w, use_reentrant=False)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("old checkpoint around", "the compiled function is called in a reentrant checkpoint", """
        from torch.utils.checkpoint import checkpoint

        y = checkpoint(run, x, w, use_reentrant=True)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("backward by compiled autograd", "the backward goes through compiled autograd", """
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            ordinary(x, w, number)
    """),
)

_MEMORY = (
    _behaviour("input changed by the graph", "an input is written to", """
        x = x.detach()
        y = run(x, w)
        learn(y)
        account.tell(x=x, y=y, dw=w.grad)
    """, core="x.add_(1) if not x.requires_grad else None\nreturn torch.tanh(x @ w)", fits=("top", "submodule")),
    _behaviour("input changed before the backward", "an input is written to before the backward", """
        y = run(x, w)
        with torch.no_grad():
            w.mul_(2)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("output changed before the backward", "the output is written to before the backward", """
        y = run(x, w)
        y.mul_(2)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("inputs that are one", "both inputs are one tensor", """
        x, w = inputs(4)
        y = run(w, w)
        learn(y)
        account.tell(y=y, dw=w.grad)
    """),
    _behaviour("inputs that share memory", "the inputs share memory, and one is written to", """
        both = torch.arange(28.0).div(9).sin()
        x, w = both[:12].view(3, 4), both[8:24].view(4, 4)
        account.tell(y=run(x, w), x=x, w=w)
    """, core="if not x.requires_grad:\n    x.add_(1)\nreturn torch.tanh(x @ w)", fits=("top", "submodule")),
    _behaviour("output that is an input", "the output is a view of an input", """
        y = run(x.detach(), w.detach())
        x2 = x.detach()
        z = run(x2, w.detach())
        account.tell(y=y, z=z, x2=x2)
        z.add_(1)
        account.tell(z=z, x2=x2)
    """, core="return x.view(-1).view(x.shape) if not x.requires_grad else x @ w", fits=("top", "submodule")),
    _behaviour("other strides", "the inputs have other strides", """
        y = run(x.t().contiguous().t(), w.t())
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("another offset", "an input begins inside of its memory", """
        y = run(torch.cat([x, x])[3:], w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """),
    _behaviour("unaligned memory", "an input's memory is not aligned", """
        loose = torch.arange(17.0).div(9).sin()[1:].view(4, 4).requires_grad_()
        y = run(x, loose)
        learn(y)
        account.tell(y=y, dx=x.grad)
    """),
    _behaviour("double precision later", "the second step is in double precision", """
        x, w = (value.detach().double().requires_grad_() for value in (x, w)) if number else (x, w)
        ordinary(x, w, number)
    """),
    _behaviour("a wrong shape", "the shapes do not fit at the second step", """
        ordinary(x, w if number != 1 else w[:3].detach(), number)
    """),
    _behaviour("an empty input", "the input has no rows at the second step", """
        x = x if number != 1 else x.detach()[:0].requires_grad_()
        ordinary(x, w, number)
    """),
)

_RANDOM = (
    _behaviour("random numbers in the graph", "the graph draws random numbers twice", """
        account.tell(y=run(x, w), z=run(x, w), next=torch.rand(2))
    """, core="return torch.nn.functional.dropout(x @ w, 0.5) + torch.rand_like(x)"),
    _behaviour("state of the random numbers", "the random state is put back", """
        state = torch.get_rng_state()
        y = run(x, w)
        torch.set_rng_state(state)
        z = run(x, w)
        learn(z)
        account.tell(y=y, z=z, dx=x.grad, next=torch.rand(2))
    """, core="return torch.nn.functional.dropout(x @ w, 0.5) + torch.rand_like(x)"),
    _behaviour("random numbers of python", "python's random numbers are drawn in the graph", """
        account.tell(y=run(x, w), next=random.random())
    """, core="return x @ w * random.uniform(0.0, 1.0)", fits=("top", "submodule")),
    _behaviour("an optimizer's step", "an optimizer's step follows", """
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            learn(run(x, w))
            optimizer.step()
        account.tell(w=w)
    """),
    _behaviour("a compiled optimizer's step", "a compiled optimizer's step follows", """
        optimizer = torch.optim.Adam([w], lr=torch.tensor(0.1))
        learn(run(x, w))
        torch.compile(optimizer.step)()
        account.tell(w=w)
    """, fits=("top",)),
    _behaviour("a graph break", "there is a break in the graph", "ordinary(x, w, number)", core="""
        y = x @ w
        if PHASE == "B":
            torch._dynamo.graph_break()
        return torch.tanh(y)
    """, fullgraph=False, fits=("top", "submodule")),
    _behaviour("an exception in the graph", "the function raises at the second step", """
        global WRONG
        WRONG = number == 1
        ordinary(x, w, number)
    """, setup="WRONG = False", core="if WRONG:\n    raise KeyError('wrong')\nreturn torch.tanh(x @ w)", fullgraph=False, fits=("top", "submodule")),
    _behaviour("dynamo reset", "dynamo forgets everything between the steps", """
        ordinary(x, w, number)
        torch._dynamo.reset()
    """),
    _behaviour("copy of the compiled module", "a copy of the compiled function is used", """
        import copy

        again = torch.compile(copy.deepcopy(body), fullgraph=True)
        y = again(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """, fits=("submodule",)),
    Thing(
        name="end by an error",
        kind="same behaviour",
        differs="whether the program dies of an error after its second step",
        setup="import sys",
        drive="""
        for number in range(3):
            x, w = inputs(3)
            with account.step(f"step {number}"):
                y = run(x, w)
                learn(y)
                account.tell(y=y, dx=x.grad, dw=w.grad)
            if number == 1 and pick(False, True):
                account.close()
                raise ValueError("enough")
        """,
    ),
)

BEHAVIOUR = (*_GRADIENTS, *_HOOKS, *_MEMORY, *_RANDOM)
