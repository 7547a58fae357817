"""Hooks, saved tensors and checkpoints around a compiled function."""

from __future__ import annotations

from tests.twins.things.behaviour.gradients import behaviour

HOOKS = (
    behaviour(
        "hook on an input",
        "there is a hook on an input",
        """
        w.register_hook(lambda grad: grad * 3)
        ordinary(x, w, number)
    """,
    ),
    behaviour(
        "hook on the output",
        "there is a hook on the output",
        """
        y = run(x, w)
        y.register_hook(lambda grad: grad * 3)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "hook after accumulation",
        "there is a hook after accumulation",
        """
        seen = []
        w.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
        ordinary(x, w, number)
        account.tell(seen=seen)
    """,
    ),
    behaviour(
        "hook on the graph's node",
        "there is a hook on the node of the graph",
        """
        seen = []
        y = run(x, w)
        y.grad_fn.register_hook(lambda into, out: seen.append(len(into)))
        learn(y)
        account.tell(y=y, seen=seen, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "a hook that raises",
        "a hook raises an error at the second step",
        """
        def hook(grad):
            if number == 1:
                raise KeyError("no gradient today")

        y = run(x, w)
        y.register_hook(hook)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "saved tensors packed",
        "saved tensors go through hooks",
        """
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.double(), lambda t: t.float()):
            ordinary(x, w, number)
    """,
    ),
    behaviour(
        "saved tensors on the CPU",
        "saved tensors are kept by save_on_cpu",
        """
        with torch.autograd.graph.save_on_cpu():
            ordinary(x, w, number)
    """,
    ),
    behaviour(
        "saved tensors counted",
        "saved tensors are looked at",
        """
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(list(t.shape)) or t, lambda t: t):
            ordinary(x, w, number)
        account.tell(seen=sorted(seen))
    """,
    ),
    behaviour(
        "no saved tensors allowed",
        "saving tensors is forbidden",
        """
        with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
            ordinary(x, w, number)
    """,
    ),
    behaviour(
        "checkpoint around",
        "the compiled function is called in a checkpoint",
        """
        from torch.utils.checkpoint import checkpoint

        y = checkpoint(run, x, w, use_reentrant=False)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "old checkpoint around",
        "the compiled function is called in a reentrant checkpoint",
        """
        from torch.utils.checkpoint import checkpoint

        y = checkpoint(run, x, w, use_reentrant=True)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "backward by compiled autograd",
        "the backward goes through compiled autograd",
        """
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
            ordinary(x, w, number)
    """,
    ),
)
