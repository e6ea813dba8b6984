"""Numbers without a clock: arithmetic of an attack step over a forward, operations, constants and temporaries of its program, traces
of a second call, queries, modules that an import loads. The same on any machine for one version of jax, so the limits are tight."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.attack._problem import Problem
from jaxsec.attack._run import start
from jaxsec.core._rewrite import tuned

from . import nets

ROWS, CLASSES = 32, 10
# method, times of a forward that a step costs: 1 and, where it needs a gradient, a backward to the input only; queries per surviving row
# of 3 steps, with the front door's clean pass and its verdict on each round (and APGD-T's and FAB-T's look for the class to reach)
METHODS = {
    "pgd": (jaxsec.PGD(steps=3), 2, 1 + 4 + 1),
    "apgd-ce": (jaxsec.APGD(steps=3), 2, 1 + 4 + 1),
    "apgd-t": (jaxsec.APGD(steps=3, targets=2), 2, 1 + 2 * (4 + 1)),
    "fab-t": (jaxsec.FAB(steps=3, targets=2, minimise=False), 2, 1 + 2 * (5 + 1)),
    "square": (jaxsec.Square(steps=3), 1, 1 + 3 + 1),
}


def problem(tune: bool) -> Problem:
    r = np.random.default_rng(0)
    model = jaxsec.bind(nets.four, [jnp.asarray(a) for a in nets.four_weights()])
    x = jnp.asarray(r.uniform(0, 1, (ROWS, 1, 28, 28)), jnp.float32)
    y = jax.jit(model)(x).argmax(axis=1).astype(jnp.int32)
    threat = jaxsec.LInf(eps=1e-6, lo=0.0, hi=1.0).canonical(x)
    keys = jax.random.split(jax.random.key(0), ROWS)
    return Problem(model=tuned(model) if tune else model, x0=x, y=y, threat=threat, keys=keys, n_classes=CLASSES)


def compiled(f, *args):
    lowered = jax.jit(f).lower(*args)
    return lowered.as_text().count(" = "), lowered.compile()


@pytest.mark.parametrize("name", METHODS)
def test_step(name, store):
    method, times, queries = METHODS[name]

    def step(p, s, i):
        return method.step(p, s, i)

    plain, fast = problem(False), problem(True)
    state = jax.eval_shape(start, method, plain, jnp.int32(0))
    _, ours = compiled(step, plain, state, jnp.int32(1))
    _, forward = compiled(lambda m, x: m(x), plain.model, plain.x0)
    flops = ours.cost_analysis()["flops"] / forward.cost_analysis()["flops"]
    fast_state = jax.eval_shape(start, method, fast, jnp.int32(0))
    operations, native = compiled(step, fast, fast_state, jnp.int32(1))
    constants = sum(np.asarray(c).nbytes for c in jax.make_jaxpr(step)(fast, fast_state, jnp.int32(1)).consts)
    temporary = native.memory_analysis().temp_size_in_bytes / fast.x0.nbytes
    r = jaxsec.attack(plain.model, plain.x0, plain.y, threat=plain.threat, method=method, key=jax.random.key(0), progress=False)
    spent = set(np.asarray(r.queries)[~np.asarray(r.success)].tolist())
    store(
        flops_over_forward=flops, stablehlo_operations=operations, captured_bytes=constants, temporary_bytes_over_batch=temporary,
        queries_per_surviving_row=sorted(spent), error_under_attack=float(np.asarray(r.success).mean()),
    )  # fmt: skip
    assert times - 0.05 <= flops <= times * 1.15
    assert constants <= 1024
    assert spent == {queries}


def test_second_call_traces_nothing(store):
    count = []

    def net(params, x):
        count.append(1)
        return nets.four(params, x)

    p = problem(False)
    spent = {}
    for name, (method, _, _) in METHODS.items():
        before = len(count)
        for scale, eps, seed in ((1.0, 1e-6, 0), (1.01, 2e-6, 1)):
            model = jaxsec.bind(net, jax.tree.map(lambda w, scale=scale: w * scale, p.model.params))
            threat = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0)
            jaxsec.attack(model, p.x0, p.y, threat=threat, method=method, key=jax.random.key(seed), min_rows=ROWS, max_rows=ROWS)
            spent.setdefault(name, []).append(len(count) - before)
            before = len(count)
    store(traces_of_first_and_second_call=spent)
    assert all(second == 0 for _, second in spent.values()), spent


def test_import_loads_few_modules(store):
    """Beyond our own rooms, `import jaxsec` brings in next to nothing that JAX and optax do not, and none of what an extra installs."""

    def loaded(modules: str) -> set[str]:
        code = f"import sys, {modules}; print(*sys.modules)"
        return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())

    beyond = loaded("jaxsec") - loaded("jax, optax, numpy, scipy")
    ours = {m for m in beyond if m.split(".")[0] == "jaxsec"}
    store(modules_beyond_jax_and_optax=len(beyond - ours), own_modules=len(ours))
    assert "jaxsec.attack" in ours and not any(m.startswith(("jaxsec.train", "jaxsec.cli")) for m in ours)
    assert len(beyond - ours) <= 40, sorted(beyond - ours)
