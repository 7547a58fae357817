"""Ways to take gradients. A daemon must not change the gradients, nor the error where there is one."""

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


def behaviour(
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
    """Return twins of which B does something special, and A takes its gradients in the usual way."""
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


GRADIENTS = (
    behaviour(
        "graph kept",
        "the graph is kept and used twice",
        """
        y = run(x, w)
        learn(y, retain_graph=True)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "two gradients before the backward",
        "two gradients are taken of one graph before the backward",
        """
        y = run(x, w)
        (a,) = torch.autograd.grad(y.square().mean(), w, retain_graph=True)
        (b,) = torch.autograd.grad(y.sum(), w, retain_graph=True)
        (y * (a.norm() / b.norm()).detach()).sum().backward()
        account.tell(y=y, a=a, b=b, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "graph kept late",
        "the graph is kept, but not from the first step on",
        """
        y = run(x, w)
        learn(y, retain_graph=number > 0)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        if number > 0:
            learn(y)
            account.tell(dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "graph freed",
        "the graph is used again after it was freed",
        """
        y = run(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
        learn(y)
    """,
    ),
    behaviour(
        "gradient of a gradient",
        "a gradient of the gradient is wanted",
        """
        y = run(x, w)
        (a,) = torch.autograd.grad(y.square().sum(), w, create_graph=True)
        account.tell(y=y, a=a)
        a.square().sum().backward()
        account.tell(dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "create_graph alone",
        "the gradient could be differentiated, but is not",
        """
        y = run(x, w)
        learn(y, create_graph=True)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "gradient of a part",
        "only one gradient is wanted",
        """
        y = run(x, w)
        account.tell(y=y, dw=torch.autograd.grad(y.square().sum(), [w])[0])
    """,
    ),
    behaviour(
        "gradient for one input",
        "only one input takes a gradient",
        """
        y = run(x.detach(), w)
        learn(y)
        account.tell(y=y, dw=w.grad)
    """,
    ),
    behaviour("no gradient", "no gradient is taken", "account.tell(y=run(x, w))"),
    behaviour(
        "inference first",
        "the first step is without gradients",
        """
        with torch.set_grad_enabled(number > 0):
            y = run(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "inference mode last",
        "the last step is in inference mode",
        """
        if number < 2:
            return ordinary(x, w, number)
        with torch.inference_mode():
            account.tell(y=run(x, w))
    """,
    ),
    behaviour(
        "two forwards, two backwards",
        "two graphs are alive at once",
        """
        y, z = run(x, w), run(x * 2, w)
        learn(z)
        learn(y)
        account.tell(y=y, z=z, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "gradients that add up",
        "gradients are added to former ones",
        """
        for _ in range(2):
            learn(run(x, w))
        account.tell(dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "backward for some inputs",
        "backward is told for which inputs",
        """
        y = run(x, w)
        y.square().sum().backward(inputs=[x])
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "backward in another thread",
        "the backward runs in another thread",
        """
        import threading

        y = run(x, w)
        thread = threading.Thread(target=learn, args=(y,))
        thread.start()
        thread.join()
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "gradient of other strides",
        "the incoming gradient has other strides",
        """
        y = run(x, w)
        y.backward(torch.ones(4, 3).t() * 0.5)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "gradient that is expanded",
        "the incoming gradient has strides of zero",
        """
        y = run(x, w)
        y.sum().backward()
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "anomalies are looked for",
        "anomalies are looked for from the second step on",
        """
        with torch.autograd.set_detect_anomaly(number > 0):
            ordinary(x, w, number)
    """,
    ),
)
