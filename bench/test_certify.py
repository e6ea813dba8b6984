"""Certified margins against auto_LiRPA on the same weights and images: seconds, and how tight the bounds are."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.certify import margins

from . import nets
from .conftest import interleaved, ratio

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
EPS = 0.05
# (our method, the peer's name, rounds, how much faster we must be, how far below the peer's mean bound we may be)
CASES = {
    "crown-ibp": (jaxsec.CROWNIBP(), "CROWN-IBP", 15, 1.0, 1e-4),
    "crown": (jaxsec.CROWN(), "CROWN", 7, 3.0, 1e-4),
    "alpha-crown": (jaxsec.AlphaCROWN(steps=20), "CROWN-Optimized", 1, 5.0, 1e-4),
}


@pytest.mark.parametrize("name", list(CASES))
def test_margins_of_100_images(name, store, smoke):
    method, peer, rounds, least, slack = CASES[name]
    n = 4 if smoke else 100
    steps = 2 if smoke else 20
    if smoke and name == "alpha-crown":
        method = jaxsec.AlphaCROWN(steps=steps)
    model, net = nets.both("wong")
    x, y = nets.mnist(n)
    threat = jaxsec.LInf(eps=EPS, lo=0.0, hi=1.0)
    spec = margins(jnp.asarray(y), 10, jnp.float32)
    held = {}

    def ours():
        held["jaxsec"] = np.asarray(jaxsec.bound(model, (threat, x), method=method, spec=spec))

    begin = time.perf_counter()
    ours()
    first = time.perf_counter() - begin
    candidates = {"jaxsec": ours}
    try:
        from . import lirpa

        torch.set_num_threads(2)
        bounded = lirpa.build(net, steps)

        def theirs():
            held["auto_LiRPA"] = lirpa.lower(bounded, *lirpa.problem(x, y, EPS), peer)

        candidates["auto_LiRPA"] = theirs
    except ImportError:
        pass
    seconds = interleaved(candidates, 1 if smoke else rounds)
    compile_seconds = first - min(seconds["jaxsec"])
    means = {k: float(v.mean()) for k, v in held.items()}
    proved = {k: int((v.min(1) > 0).sum()) for k, v in held.items()}
    attacked = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.PGD(steps=10), key=jax.random.key(0), progress=False)
    assert not ((held["jaxsec"].min(1) > 0) & np.asarray(attacked.success)).any()
    ratios = ratio(seconds, "auto_LiRPA", "jaxsec") if "auto_LiRPA" in seconds else None
    store(
        rows=n, seconds={k: min(v) for k, v in seconds.items()}, compile_seconds=compile_seconds, ratio=ratios,
        mean_margin=means, verified=proved,
    )  # fmt: skip
    if smoke or ratios is None:
        return
    assert means["jaxsec"] >= means["auto_LiRPA"] - slack, means
    assert compile_seconds < 20
    assert ratios[1] >= least, ratios
