"""Inputs that are written to or share memory, changing shapes, random streams, and programs that end with an error."""

from __future__ import annotations

from tests.twins.thing import BOTH, Thing
from tests.twins.things.behaviour.gradients import behaviour

_MEMORY = (
    behaviour(
        "input changed by the graph",
        "an input is written to",
        """
        x = x.detach()
        y = run(x, w)
        learn(y)
        account.tell(x=x, y=y, dw=w.grad)
    """,
        core="""
x.add_(1) if not x.requires_grad else None
return torch.tanh(x @ w)
""",
        fits=("top", "submodule"),
    ),
    behaviour(
        "input changed before the backward",
        "an input is written to before the backward",
        """
        y = run(x, w)
        with torch.no_grad():
            w.mul_(2)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "output changed before the backward",
        "the output is written to before the backward",
        """
        y = run(x, w)
        y.mul_(2)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "inputs that are one",
        "both inputs are one tensor",
        """
        x, w = inputs(4)
        y = run(w, w)
        learn(y)
        account.tell(y=y, dw=w.grad)
    """,
    ),
    behaviour(
        "inputs that share memory",
        "the inputs share memory, and one is written to",
        """
        both = torch.arange(28.0).div(9).sin()
        x, w = both[:12].view(3, 4), both[8:24].view(4, 4)
        account.tell(y=run(x, w), x=x, w=w)
    """,
        core="""
if not x.requires_grad:
    x.add_(1)
return torch.tanh(x @ w)
""",
        fits=("top", "submodule"),
    ),
    behaviour(
        "output that is an input",
        "the output is a view of an input",
        """
        y = run(x.detach(), w.detach())
        x2 = x.detach()
        z = run(x2, w.detach())
        account.tell(y=y, z=z, x2=x2)
        z.add_(1)
        account.tell(z=z, x2=x2)
    """,
        core="return x.view(-1).view(x.shape) if not x.requires_grad else x @ w",
        fits=("top", "submodule"),
    ),
    behaviour(
        "other strides",
        "the inputs have other strides",
        """
        y = run(x.t().contiguous().t(), w.t())
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "another offset",
        "an input begins inside of its memory",
        """
        y = run(torch.cat([x, x])[3:], w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
    ),
    behaviour(
        "unaligned memory",
        "an input's memory is not aligned",
        """
        loose = torch.arange(17.0).div(9).sin()[1:].view(4, 4).requires_grad_()
        y = run(x, loose)
        learn(y)
        account.tell(y=y, dx=x.grad)
    """,
    ),
    behaviour(
        "double precision later",
        "the second step is in double precision",
        """
        x, w = (value.detach().double().requires_grad_() for value in (x, w)) if number else (x, w)
        ordinary(x, w, number)
    """,
    ),
    behaviour(
        "a wrong shape",
        "the shapes do not fit at the second step",
        """
        ordinary(x, w if number != 1 else w[:3].detach(), number)
    """,
    ),
    behaviour(
        "an empty input",
        "the input has no rows at the second step",
        """
        x = x if number != 1 else x.detach()[:0].requires_grad_()
        ordinary(x, w, number)
    """,
    ),
)


_SHARING = tuple(
    Thing(
        name=f"inputs that share memory: {name}",
        kind="same behaviour",
        differs="whether the inputs lie in one piece of memory; their places in it are the same",
        setup="""
ONE = torch.arange(28.0).div(9).sin()
OTHER = pick(ONE.clone(), ONE)
""",
        core=core,
        drive="""
        for number in range(2):
            x, w = ONE[:12].view(3, 4), OTHER[8:24].view(4, 4)
            with account.step(f"step {number}"):
                account.tell(y=run(x, w), x=x, w=w)
        """,
        fits=("top", "submodule"),
        times=BOTH,
        parts=("sharing",),
    )
    for name, core in (
        ("the first is written to", "x.add_(1)\nreturn torch.tanh(x @ w)"),
        # One loop over w is right where the inputs lie apart; it does both readings before the writing, or after it.
        ("written to between two readings", "y = w * 2\nx.add_(1)\nreturn x @ (y + w * 3)"),
        ("the second is written to", "w.mul_(2)\nreturn torch.tanh(x @ w) + x"),
        ("nothing is written to", "return torch.tanh(x @ w)"),
    )
)

_RANDOM = (
    behaviour(
        "random numbers in the graph",
        "the graph draws random numbers twice",
        """
        account.tell(y=run(x, w), z=run(x, w), next=torch.rand(2))
    """,
        core="return torch.nn.functional.dropout(x @ w, 0.5) + torch.rand_like(x)",
    ),
    behaviour(
        "state of the random numbers",
        "the random state is put back",
        """
        state = torch.get_rng_state()
        y = run(x, w)
        torch.set_rng_state(state)
        z = run(x, w)
        learn(z)
        account.tell(y=y, z=z, dx=x.grad, next=torch.rand(2))
    """,
        core="return torch.nn.functional.dropout(x @ w, 0.5) + torch.rand_like(x)",
    ),
    behaviour(
        "random numbers of python",
        "python's random numbers are drawn in the graph",
        """
        account.tell(y=run(x, w), next=random.random())
    """,
        core="return x @ w * random.uniform(0.0, 1.0)",
        fits=("top", "submodule"),
    ),
    behaviour(
        "an optimizer's step",
        "an optimizer's step follows",
        """
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            learn(run(x, w))
            optimizer.step()
        account.tell(w=w)
    """,
    ),
    behaviour(
        "a compiled optimizer's step",
        "a compiled optimizer's step follows",
        """
        optimizer = torch.optim.Adam([w], lr=torch.tensor(0.1))
        learn(run(x, w))
        torch.compile(optimizer.step)()
        account.tell(w=w)
    """,
        fits=("top",),
    ),
    behaviour(
        "a graph break",
        "there is a break in the graph",
        "ordinary(x, w, number)",
        core="""
        y = x @ w
        if PHASE == "B":
            torch._dynamo.graph_break()
        return torch.tanh(y)
    """,
        fullgraph=False,
        fits=("top", "submodule"),
    ),
    behaviour(
        "an exception in the graph",
        "the function raises at the second step",
        """
        global WRONG
        WRONG = number == 1
        ordinary(x, w, number)
    """,
        setup="WRONG = False",
        core="""
if WRONG:
    raise KeyError('wrong')
return torch.tanh(x @ w)
""",
        fullgraph=False,
        fits=("top", "submodule"),
    ),
    behaviour(
        "dynamo reset",
        "dynamo forgets everything between the steps",
        """
        ordinary(x, w, number)
        torch._dynamo.reset()
    """,
    ),
    behaviour(
        "copy of the compiled module",
        "a copy of the compiled function is used",
        """
        import copy

        again = torch.compile(copy.deepcopy(body), fullgraph=True)
        y = again(x, w)
        learn(y)
        account.tell(y=y, dx=x.grad, dw=w.grad)
    """,
        fits=("submodule",),
    ),
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
                raise ValueError("enough")
        """,
    ),
)


MEMORY = (*_MEMORY, *_SHARING, *_RANDOM)
