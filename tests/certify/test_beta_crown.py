"""`BetaCROWN` on the ladder: rows proved, broken, or open when their time is up; what cannot branch says so."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.certify._certificate import Verdict

BOX = {"lo": -1.0, "hi": 1.0}


TRACES = []


def layers(params, x):
    if isinstance(x, jax.core.Tracer):  # the replay in float64 runs eagerly
        TRACES.append(x.shape)
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b[None])
    return x @ params[-1][0] + params[-1][1][None]


@pytest.fixture(scope="module")
def setting():
    """A net of two inputs, rows, and each row's least margin on a fine grid of its box."""
    r = np.random.default_rng(5)
    params = [
        (jnp.asarray(r.normal(size=(a, b)), jnp.float32), jnp.asarray(r.normal(size=b) * 0.3, jnp.float32))
        for a, b in itertools.pairwise((2, 16, 16, 3))
    ]
    model = jaxsec.bind(layers, params)
    x = r.uniform(-1, 1, (24, 2)).astype(np.float32)
    y = np.asarray(model(jnp.asarray(x))).argmax(1)
    y[0] = (y[0] + 1) % 3  # wrong before
    g = np.linspace(-1, 1, 161, dtype=np.float32)
    offsets = np.stack(np.meshgrid(g, g), -1).reshape(-1, 2)
    least = []
    for row, label in zip(x, y, strict=True):
        z = np.asarray(model(jnp.asarray(np.clip(row + 0.2 * offsets, -1, 1))))
        least.append((z[:, label] - np.delete(z, label, 1).max(1)).min())
    return model, x, y, np.array(least)


@pytest.mark.parametrize("sound", [False, True])
def test_every_row_is_decided_as_on_a_grid(setting, sound: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y, least = setting
    threat = jaxsec.LInf(eps=0.2, **BOX)
    plain = jaxsec.certify(model, x, y, threat=threat, method=jaxsec.CROWN(), sound=sound)
    both = jaxsec.certify(model, x, y, threat=threat, method=[jaxsec.CROWN(), jaxsec.BetaCROWN(timeout=60.0)], sound=sound)
    status = np.asarray(both.status)
    assert status[0] == Verdict.WRONG_BEFORE
    clear = np.abs(least) > 1e-2  # the grid has gaps
    clear[0] = False
    assert ((status == Verdict.CERTIFIED) == (least > 0))[clear].all()
    assert ((status == Verdict.BROKEN) == (least < 0))[clear].all()
    assert (np.asarray(both.robust) >= np.asarray(plain.robust)).all()
    assert np.asarray(both.robust).sum() > np.asarray(plain.robust).sum(), "nothing was left for branch and bound"
    assert (np.asarray(both.margin)[np.asarray(both.robust)] >= 0).all()
    assert "broken" in repr(both)


def test_time_that_is_up_leaves_rows_open(setting) -> None:
    model, x, y, _ = setting
    found = jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=0.2, **BOX), method=jaxsec.BetaCROWN(timeout=0.0))
    status = np.asarray(found.status)
    assert set(status[1:]) == {Verdict.OPEN} and not np.asarray(found.robust).any()


def test_a_second_call_traces_nothing(setting) -> None:
    model, x, y, _ = setting
    for eps in (0.1, 0.2):  # both ends of what is compiled on the way: small and large rounds
        jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=eps, **BOX), method=jaxsec.BetaCROWN())
    before = len(TRACES)
    jaxsec.certify(model, x, y, threat=jaxsec.LInf(eps=0.15, **BOX), method=jaxsec.BetaCROWN())
    assert len(TRACES) == before


def test_what_it_cannot_branch_on(setting) -> None:
    model, x, y, _ = setting
    with pytest.raises(ValueError, match=r"beta-CROWN has the threat L2, and branches on boxes only: LInf \(linf\) and Box"):
        jaxsec.certify(model, x, y, threat=jaxsec.L2(eps=0.2, **BOX), method=[jaxsec.CROWN(), jaxsec.BetaCROWN()])


def test_under_jit_it_is_its_root(setting) -> None:
    model, x, y, _ = setting
    threat = jaxsec.LInf(eps=0.1, **BOX)
    run = lambda m: jax.jit(lambda x: jaxsec.certify(model, x, jnp.asarray(y), threat=threat, method=m).margin)(jnp.asarray(x))  # noqa: E731
    np.testing.assert_allclose(run(jaxsec.BetaCROWN(steps=5)), run(jaxsec.AlphaCROWN(steps=5)), rtol=1e-5, atol=1e-5)
