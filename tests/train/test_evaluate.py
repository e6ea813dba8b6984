"""What `evaluate` says of defences whose worth is known, and what counts in its numbers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import jaxsec
from jaxsec.train import _evaluate_trial as module
from jaxsec.train import net_of
from jaxsec.train._evaluate import Defence, Evaluation, defence_of, evaluate
from jaxsec.train._evaluate_search import Search, margin_pgd
from jaxsec.train._evaluate_trial import Trial
from jaxsec.train._temperature import at_temperature, tempered
from jaxsec.train._transform import adaptive, defended
from jaxsec.train._transform_code import BitDepth, Thermometer
from jaxsec.train._transform_jpeg import JPEG
from jaxsec.train._transform_random import RandomAblation

THREAT = jaxsec.LInf(eps=0.12, lo=0.0, hi=1.0)
KEY = jax.random.key(3)
PGD = jaxsec.PGD(steps=15)
ROWS = {"min_rows": 64, "max_rows": 64}


def mlp(params, x):
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(x @ params["a"] + params["b"][None]) @ params["c"]


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    x, y = (found.images / 16).astype(np.float32), found.target.astype(np.int32)
    return x[:1500], y[:1500], x[1500:1564], y[1500:1564]


def trained(digits, transform=None, inputs=64):
    """A net of two layers that learned the digits, behind the transformation if there is one."""
    x, y = jnp.asarray(digits[0]), jnp.asarray(digits[1])
    a, c = jax.random.split(jax.random.key(0))
    params = {"a": jax.random.normal(a, (inputs, 64)) / 8, "b": jnp.zeros(64), "c": jax.random.normal(c, (64, 10)) / 8}
    net = net_of(mlp, params) if transform is None else defended(net_of(mlp, params), transform)
    rule = optax.adam(5e-3)

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            i = jax.random.randint(key, (64,), 0, len(x))

            def loss(params):
                logits, _ = net.replace(params=params).training(x[i], jax.random.split(key, 64))
                return optax.softmax_cross_entropy_with_integer_labels(logits, y[i]).mean()

            updates, state = rule.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, rule.init(params)), jax.random.split(jax.random.key(1), 300))[0][0]

    return net.replace(params=run(params)).model()


@pytest.fixture(scope="module")
def model(digits):
    return trained(digits)


@pytest.fixture(scope="module")
def found(digits, model):
    """The one evaluation that most tests read."""
    models = {
        "none": model,
        "2 bits": defended(model, BitDepth(bits=2)),
        "JPEG 25": defended(model, JPEG(quality=25)),
        "distilled": Defence(model=at_temperature(model, 1e-5), surrogates=(model,), note="logits times 1e5"),
    }
    return models, evaluate(models, *digits[2:], threat=THREAT, key=KEY, method=PGD, adaptive_method=PGD, **ROWS)


def test_obfuscated_gradients_fall_and_a_plain_net_does_not(found):
    _, table = found
    assert table["none"].verdict == "holds" and table["none"].clean > 0.85
    assert table["none"].naive - table["none"].adaptive < 0.1
    for name in ("2 bits", "JPEG 25", "distilled"):
        row = table[name]
        assert row.verdict == "falls" and row.naive > 0.75 and row.adaptive < row.naive - 0.15, row
    assert table["JPEG 25"].adaptive < 0.45
    # dividing by the temperature hides the gradient and defends nothing
    assert table["distilled"].adaptive < table["none"].naive + 0.05
    assert "zero-gradients" in table["JPEG 25"].flags and "zero-gradients" not in table["none"].flags


def test_every_number_can_be_recomputed_from_the_returned_inputs(found, digits):
    models, table = found
    x, y = digits[2:]
    for row in table.rows:
        deployed = models[row.name].model if isinstance(models[row.name], Defence) else models[row.name]
        wrong = np.argmax(deployed(row.x), axis=1) != y
        assert np.array_equal(wrong, ~row.adaptive_robust)
        assert np.array_equal(np.argmax(deployed(x), axis=1) == y, row.correct)
        assert np.all(THREAT.contains(jnp.asarray(x), jnp.asarray(row.x)))
        assert np.all(row.adaptive_robust <= row.naive_robust) and np.all(row.naive_robust <= row.correct)
        assert (row.clean, row.naive, row.adaptive) == tuple(np.mean(v) for v in (row.correct, row.naive_robust, row.adaptive_robust))
        assert np.array_equal(row.x[row.adaptive_robust], x[row.adaptive_robust]) and row.judged == 1


def test_tables(found):
    table = found[1]
    lines = str(table).splitlines()
    assert lines[0].split() == ["defence", "clean", "naive", "adaptive", "verdict"] and lines[2].endswith("holds")
    assert lines[3].startswith("2 bits") and lines[3].endswith("falls [1]") and lines[5].endswith("falls [3]")
    # flags and notes stand below, where nobody can miss them
    assert lines[6] == "[1] 2 bits: flat-operations; zero-gradients" and lines[8].startswith("[3] distilled: ") and len(lines) == 9
    assert lines[8].endswith("; logits times 1e5")
    markdown = table.table(markdown=True).splitlines()
    assert markdown[6:8] == ["", lines[6]]
    markdown = markdown[:6]
    assert all(line.startswith("| ") and line.count("|") == 6 for line in markdown) and markdown[1].split("|")[2].strip().endswith("-:")
    read = json.loads(json.dumps(table.to_dict()))
    assert [row["name"] for row in read["rows"]] == list(found[0]) and "x" not in read["rows"][0]
    assert read["rows"][1]["adaptive"] == table["2 bits"].adaptive and read["n"] == 64 and "steps=15" in read["naive_method"]
    assert table["distilled"].notes == ("logits times 1e5",)
    with pytest.raises(KeyError, match="JPEG 25"):
        table["jpeg"]


def test_a_row_does_not_depend_on_its_neighbours_and_eps_does_not_retrace(found, digits, model):
    traced = []

    def counted(params, x):
        traced.append(None)
        return mlp(params, x)

    x, y = digits[2:]
    bits = defended(jaxsec.bind(counted, model.params), BitDepth(bits=2))
    kept = np.arange(1, 64, 2)
    part = evaluate(bits, x[kept], y[kept], threat=THREAT, key=KEY, method=PGD, adaptive_method=PGD, row_ids=kept, **ROWS).rows[0]
    whole = found[1]["2 bits"]
    for a, b in ((part.correct, whole.correct), (part.naive_robust, whole.naive_robust), (part.adaptive_robust, whole.adaptive_robust)):
        assert np.array_equal(a, b[kept])
    before = len(traced)
    other = defended(jaxsec.bind(counted, jax.tree.map(lambda v: v * 0.9, model.params)), BitDepth(bits=3))
    wide = np.full(64, 0.2, np.float32)
    again = evaluate(other, x, y, threat=jaxsec.LInf(eps=wide, lo=0.0, hi=1.0), key=KEYS[1], method=PGD, adaptive_method=PGD, **ROWS)
    assert len(traced) == before and again.rows[0].adaptive < whole.adaptive


KEYS = jax.random.split(KEY, 2)


def hidden(params, x, key):
    """Wrong on three draws in ten, whatever x is."""
    flip = jax.random.uniform(key) < params["rate"]
    z = jnp.concatenate([x[:, :1], 1 - x[:, :1]], axis=1) * 20
    return jnp.where(flip, -z, z)


PGD10 = jaxsec.PGD(steps=10)
# the same numbers everywhere, so that all evaluations of `hidden` run the same programs
COIN = {"key": KEY, "method": PGD10, "adaptive_method": PGD10, "draws": 10, "judged": 61, **ROWS}


def coin(rate):
    return jaxsec.bind(hidden, {"rate": jnp.float32(rate)}, stochastic=True)


def around(eps):
    return jaxsec.LInf(eps=np.full(64, eps, np.float32), lo=0.0, hi=1.0)


def test_a_random_model_is_judged_by_the_mean_of_fresh_draws():
    x, y = np.linspace(0.1, 0.9, 9, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32), np.array([1] * 4 + [0] * 5)
    row = evaluate(coin(0.3), x, y, threat=around(0.15).replace(eps=np.full(9, 0.15, np.float32)), **COIN).rows[0]
    # the middle row is at the boundary; single draws would call 30 % of all wrong
    off = np.arange(9) != 4
    assert np.all(row.correct[off])
    assert np.array_equal(row.adaptive_robust[off], [True, True, True, False, False, True, True, True])
    assert row.judged == 61 and row.naive >= row.adaptive


def test_a_random_model_that_is_worth_nothing_does_not_hold():
    # every row can be moved to 0.4, where the model is wrong on seven draws in ten; the draws that are wrong near 0.9 mislead
    row = evaluate(coin(0.3), *EVEN, threat=around(0.5), **COIN).rows[0]
    assert row.clean == 1.0 and row.adaptive == 0.0 and row.verdict in ("falls", "broken")
    assert np.all(np.asarray(row.x)[:, 0] < 0.5)


EVEN = np.full((64, 2), 0.9, np.float32), np.zeros(64, np.int32)


def test_chance_is_not_charged_to_the_defence_twice():
    # a coin that lands as often right as wrong, and no input near 0.9 that changes that
    fixed, near = (evaluate(coin(0.5), *EVEN, threat=around(eps), **COIN).rows[0] for eps in (0.0, 0.1))
    assert 0.3 < fixed.clean < 0.7
    for row in (fixed, near):
        assert row.naive == row.clean == row.adaptive == fixed.clean and row.verdict == "holds"
    # rows are judged apart, each by its own keys
    x, y = EVEN
    part = evaluate(coin(0.5), x[5:9], y[5:9], threat=around(0.1).replace(eps=np.full(4, 0.1, np.float32)), **COIN, row_ids=np.arange(5, 9))
    assert np.array_equal(part.rows[0].correct, near.correct[5:9])


def test_a_fall_takes_two_judgements():
    trial = Trial(coin(0.5), *EVEN, np.arange(64), around(1.0), KEY, n_classes=2, judged=61, max_rows=64, min_rows=64)
    once, again = (trial.judge(at, np.arange(64)) for at in (EVEN[0], EVEN[0] - 0.1))
    assert np.array_equal(once.wrong, again.wrong)  # the same draws at every input, and no ties of an odd number
    # half of the rows are right by both judgements together, a quarter is wrong by each of them
    assert 0.3 < once.right.mean() < 0.7 and 0.1 < once.wrong.mean() < 0.4 and not np.any(once.right & once.wrong)


def coarse(params, x):
    return jnp.round(x * 4) / 4 @ params["w"]


def test_gradients_that_are_masked_inside_the_model_do_not_hold():
    r = np.random.default_rng(0)
    plain = jaxsec.bind(coarse, {"w": jnp.asarray(r.normal(size=(64, 3)), jnp.float32)})
    x = r.uniform(size=(2000, 64)).astype(np.float32)
    z = np.sort(plain(x), axis=1)
    x = x[np.flatnonzero(z[:, -1] - z[:, -2] > 2.5)[:32]]
    small = THREAT.replace(eps=0.03)  # which few steps are near enough for
    how = {"threat": small, "key": KEY, "method": PGD10, "adaptive_method": PGD10, "min_rows": 32, "max_rows": 32}
    y = np.argmax(plain(x), axis=1)
    table = evaluate(plain, x, y, **how)
    row = table.rows[0]
    assert row.naive > 0.9 and row.adaptive > 0.9 and row.verdict == "masked"
    assert "masked [1]" in str(table) and "[1] model: flat-operations; zero-gradients; " in str(table)
    assert "no gradient attack saw through the model" in row.notes[-1]


def misled(params, x, key=None):
    """The right answers with lively gradients that have nothing to do with them."""
    x = x.reshape(len(x), -1) - 0.5
    if key is not None:
        x = x + 0.01 * jax.random.normal(key, x.shape)
    still = jax.lax.stop_gradient(x)
    return 4 * still @ params["w"] + 1e-3 * (x - still) @ params["r"]


def one_bit(params, x):
    return 4 * (jnp.round(x) - 0.5) @ params["w"]


def other_features(params, x):
    return x[:, :3] @ params


@pytest.fixture(scope="module")
def corners():
    """Rows near corners of a cube, whose linear classifier falls at eps = 0.3."""
    r = np.random.default_rng(0)
    centres, y = r.choice([0.25, 0.75], size=(4, 64)), r.integers(0, 4, 32)
    x = np.clip(centres[y] + 0.05 * r.normal(size=(32, 64)), 0, 1).astype(np.float32)
    params = {"w": jnp.asarray((centres - 0.5).T, jnp.float32), "r": jnp.asarray(r.normal(size=(64, 4)), jnp.float32)}
    return params, x, y.astype(np.int32)


def test_lively_gradients_that_mislead_do_not_hold(corners):
    params, x, y = corners
    how = {"threat": jaxsec.LInf(eps=0.3, lo=0.0, hi=1.0), "key": KEY, "method": PGD10, "adaptive_method": PGD10, "judged": 11}
    how |= {"min_rows": 32, "max_rows": 32}
    models = {
        "table": jaxsec.bind(misled, params),
        "random": jaxsec.bind(misled, params, stochastic=True),
        "useless surrogate": Defence(model=jaxsec.bind(one_bit, params), surrogates=(jaxsec.bind(other_features, params["r"][:3]),)),
    }
    table = evaluate(models, x, y, **how)
    for row in table.rows:
        assert row.naive == 1.0 and row.verdict in ("falls", "masked"), row
        assert any("a search without gradients" in note for note in row.notes)
    assert table["table"].adaptive < 0.1 and table["random"].adaptive < 0.1


def test_a_surrogate_has_to_do_better_than_no_gradients(corners):
    """At an eps that moves no row across a step nothing lowers the margin, and a model of flat operations is not cleared."""
    params, x, y = corners
    deaf = Defence(model=jaxsec.bind(one_bit, params), surrogates=(jaxsec.bind(other_features, params["r"][:3]),))
    how = {"threat": jaxsec.LInf(eps=0.02, lo=0.0, hi=1.0), "key": KEY, "method": PGD10, "adaptive_method": PGD10}
    (row,) = evaluate(deaf, x, y, min_rows=32, max_rows=32, **how).rows
    assert row.adaptive > 0.9 and row.verdict == "masked" and "the model's own gradients say nothing" in row.notes[-1]


def test_few_rows_left_are_a_fall():
    """Naive 12 %, adaptive 3 %: a small difference, because little was left to lose."""
    x, y = np.tile(np.array([[0.52, 0.5]], np.float32), (100, 1)), np.zeros(100, np.int32)
    x[:12] = 0.3, 0.205
    x[:3] = 0.9, 0.1
    how = {"threat": jaxsec.LInf(eps=0.05, lo=0.0, hi=1.0), "key": KEY, "method": jaxsec.BIM(steps=1, step_size=0.02)}
    (row,) = evaluate(jaxsec.bind(linear, jnp.eye(2)), x, y, adaptive_method=PGD10, **how).rows
    assert 0.1 < row.naive < 0.2 and row.adaptive == 0.03 and row.verdict == "falls"
    for falls in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="falls is"):
            evaluate(jaxsec.bind(linear, jnp.eye(2)), x, y, falls=falls, **how)


def test_a_defended_model_among_the_parameters_of_a_function_has_a_twin():
    outer = jaxsec.bind(outside, {"model": defended(jaxsec.bind(linear, jnp.eye(2)), BitDepth(bits=2))})
    (twin,) = defence_of(outer).surrogates
    x = jnp.array([[0.7, 0.3]])
    assert np.array_equal(twin(x), outer(x)) and not np.any(jax.grad(lambda v: outer(v)[0, 0])(x))
    assert np.array_equal(jax.grad(lambda v: twin(v)[0, 0])(x), [[1.0, 0.0]])


def linear(w, x):
    return x @ w


def outside(params, x):
    return params["model"](x)


def rounding(params, x):
    return mlp(params, jnp.round(x * 8) / 8)


def test_an_attack_without_gradients_is_among_the_default_ones(digits, model):
    masked = jaxsec.bind(rounding, model.params)
    x, y = digits[2:]
    table = evaluate(masked, x, y, threat=THREAT, key=KEY, method=jaxsec.BIM(steps=2), **ROWS)
    row = table.rows[0]
    assert any("a search without gradients broke" in note for note in row.notes) and row.adaptive < row.naive - 0.1
    assert row.verdict == "falls" and "square" in table.adaptive_methods


def test_an_input_outside_the_set_does_not_count(monkeypatch):
    def outside_the_set(target, x, y, **rest):
        return done(jnp.asarray(x)[:, ::-1], True)

    monkeypatch.setattr(module, "attack", outside_the_set)
    plain = jaxsec.bind(linear, jnp.eye(2))
    x, y = jnp.array([[0.9, 0.1]]), jnp.array([0])
    how = {"key": KEY, "method": jaxsec.BIM(steps=1), "adaptive_method": jaxsec.BIM(steps=1)}
    near, far = (evaluate(plain, x, y, threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), **how).rows[0] for eps in (0.1, 0.9))
    assert near.adaptive == 1.0 and np.array_equal(near.x, x) and far.naive == 0.0


def done(x, success):
    """What an attack says that does nothing more."""
    zero = jnp.zeros(len(x), jnp.int32)
    fields = dict.fromkeys(("queries", "gradients", "first_step", "stage", "status", "zero_gradients", "bad_gradients"), zero)
    flat = jnp.zeros(len(x), jnp.float32)
    return jaxsec.core.AttackResult(x=x, success=jnp.full(len(x), success), loss=flat, distance=flat, rising=zero > 0, **fields)


def test_draws_and_versions_that_the_attacks_get(monkeypatch):
    asked = []

    def nothing(target, x, y, *, threat, method, key, draws, **rest):
        asked.append((target.stochastic, method, draws, len(y), False))
        return done(x, False)

    def drawn(trial, target, parts, draws, rows, number, *, mean=False, around=False):
        asked.append((target.stochastic, parts, draws, len(rows), "around" if around else mean))
        return [], frozenset()

    monkeypatch.setattr(module, "attack", nothing)
    monkeypatch.setattr(Trial, "unstopped", drawn)
    plain = jaxsec.bind(linear, jnp.eye(2))
    x, y = jnp.array([[0.9, 0.1], [0.1, 0.9]]), jnp.array([0, 0])
    auto = jaxsec.AutoAttack()
    pair = Defence(model=coin(0.0), surrogates=(coin(0.0), plain))
    table = evaluate({"a": pair, "b": plain}, x, y, threat=THREAT, key=KEY, method=auto, draws=7, judged=20)

    def kinds(method):
        if isinstance(method, list):
            return [f"{m.name} {getattr(m, 'loss', '')}" for m in method]
        return method.version if isinstance(method, jaxsec.AutoAttack) else method.name

    versions = [(drawn, kinds(m), draws, mean) for drawn, m, draws, _, mean in asked]
    standard, rand, margin = ["apgd ce", "apgd dlr"], ["apgd ce", "apgd margin"], ["pgd margin"]  # of two classes DLR is the margin
    assert versions[0][::2] == (True, 1) and standard[0] in versions[0][1] and not any("fab" in m for m in versions[0][1])
    assert versions[1:5] == [(True, rand, 7, False), (True, margin, 7, False), (True, margin, 7, False), (True, margin, 7, True)]
    assert versions[5][::2] == (False, 1) and versions[6:8] == [(False, margin, 1, False)] * 2
    assert versions[8:12] == [(False, kind, 1, False) for kind in ("standard", "standard", "pgd", "pgd")]
    assert versions[12:] == [(False, margin, 7, "around"), (False, "square", 1, False)]
    # wrong rows are not attacked
    assert {rows for *_, rows, _ in asked} == {1} and [row.clean for row in table.rows] == [0.5, 0.5] and table["a"].surrogates == 2


def test_a_net_trained_on_the_thermometer_code_falls(digits):
    x, y = digits[2:]
    code = trained(digits, Thermometer(levels=8, layout="hw"), inputs=512)
    # all points further than a level's width, which at eps = 0.12 guards most rows indeed
    row = evaluate(code, x, y, threat=THREAT.replace(eps=0.2), key=KEY, method=PGD, adaptive_method=PGD, **ROWS).rows[0]
    assert row.clean > 0.85 and row.verdict == "falls" and row.naive > 0.6 and row.adaptive < 0.2


def test_defences():
    plain = jaxsec.bind(mlp, {"a": jnp.ones((4, 3)), "b": jnp.zeros(3), "c": jnp.ones((3, 2))})
    assert defence_of(plain).surrogates == ()
    coarse = defended(plain, BitDepth(bits=2))
    (twin,) = defence_of(coarse).surrogates
    assert twin.apply == adaptive(coarse).apply != coarse.apply
    assert defence_of(defended(net_of(plain), RandomAblation(keep=2))).model.stochastic
    own = Defence(model=plain)
    assert defence_of(own) is own
    assert jax.tree.structure(own) == jax.tree.structure(own.replace(note="")) != jax.tree.structure(own.replace(note="other"))
    with pytest.raises(TypeError, match="dict"):
        defence_of({"a": 1})  # pyright: ignore[reportArgumentType]


def test_twins_of_what_a_defence_lists():
    bits = defended(jaxsec.bind(linear, 50 * jnp.eye(2)), BitDepth(bits=1))
    x = jnp.array([[0.7, 0.3]])
    found = tempered(bits, 50.0)
    (through,) = found.surrogates
    assert np.allclose(jax.grad(lambda v: through(v)[0, 0])(x), [[1.0, 0.0]]) and np.allclose(through(x), bits(x) / 50)
    # the deployed model's own twin stands beside it
    both = defence_of(found)
    assert both.surrogates[0] is through and jax.tree.structure(both.surrogates[1]) == jax.tree.structure(adaptive(bits))
    assert defence_of(both) is both
    listed = Defence(model=bits, surrogates=(at_temperature(bits, 50.0),))
    assert [bool(np.any(jax.grad(lambda v, s=s: s(v)[0, 0])(x))) for s in defence_of(listed).surrogates] == [False, True, True]
    # two models of one structure are two
    scaled = bits.replace(params=jax.tree.map(lambda v: 2 * v, bits.params))
    assert len(defence_of(Defence(model=bits, surrogates=(adaptive(bits), scaled))).surrogates) == 3
    (twin,) = defence_of(Defence(model=bits)).surrogates
    assert jax.tree.structure(twin) == jax.tree.structure(adaptive(bits))
    both = defence_of(listed)
    assert defence_of(both) is both


def test_a_surrogate_that_is_wrong_from_the_start_is_followed_all_the_same():
    plain = jaxsec.bind(linear, jnp.eye(2))
    swapped = plain.replace(params=jnp.eye(2)[::-1])
    x, y = jnp.array([[0.9, 0.1], [0.8, 0.2]]), jnp.array([0, 0])
    how = {"threat": jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), "key": KEY, "method": jaxsec.BIM(), "adaptive_method": jaxsec.BIM()}
    table = evaluate(Defence(model=plain, surrogates=(swapped,)), x, y, **how)
    assert isinstance(table, Evaluation) and "surrogate 1 got 2 of 2 clean rows wrong" in table.rows[0].notes[0]
    assert table.rows[0].adaptive == 1.0 and table.rows[0].verdict == "holds"
    # its label is the wrong one everywhere, its gradient the right one
    bits, tilted = defended(plain, BitDepth(bits=1)), jaxsec.bind(shifted, jnp.array([-5.0, 5.0]))
    row = evaluate(Defence(model=bits, surrogates=(tilted,)), x, y, **{**how, "threat": THREAT.replace(eps=0.45)}).rows[0]
    assert "surrogate 1 got 2 of 2 clean rows wrong" in row.notes[0] and row.naive == 1.0 and row.adaptive == 0.0


def shifted(b, x):
    return x + b[None]


def band(edges, x, worth=1.0):
    """Wrong between the edges only."""
    return jnp.concatenate([jnp.full_like(x, 0.5), jnp.where((edges[0] < x) & (x < edges[1]), worth, 0.0)], axis=1)


def towards(bias, x):
    return jnp.concatenate([jnp.full_like(x, bias), x], axis=1)


def through_the_band(deployed, bias):
    """What is left of a model whose surrogate's gradient leads into the band and out of it again, four steps or two of 20 inside."""
    passing = Defence(model=deployed, surrogates=(jaxsec.bind(towards, jnp.float32(bias)),))
    how = {"method": jaxsec.FGSM(), "adaptive_method": jaxsec.BIM(steps=20, step_size=0.03), "key": KEY}
    found = evaluate(passing, jnp.zeros((3, 1)), jnp.zeros(3, jnp.int32), threat=jaxsec.LInf(eps=0.9, lo=0.0, hi=1.0), **how)
    return found.rows[0]


@pytest.mark.parametrize("bias", [0.2, 2.2])
def test_the_deployed_model_remembers_where_its_surrogate_passes_by(bias):
    """The surrogate is wrong before the band already, or in no place at all: the search has to go on from there."""
    row = through_the_band(jaxsec.bind(band, jnp.array([0.3, 0.4])), bias)
    assert row.clean == row.naive == 1.0 and row.adaptive == 0.0 and row.verdict == "falls"
    assert np.all((row.x > 0.3) & (row.x < 0.4))


@pytest.mark.parametrize("worth", [jnp.nan, jnp.inf, 1.0])
def test_where_the_deployed_model_has_no_answer_its_row_falls(worth):
    row = through_the_band(jaxsec.bind(lambda edges, x: band(edges, x, worth), jnp.array([0.3, 0.36])), 0.2)
    assert row.naive == 1.0 and row.adaptive == 0.0 and row.verdict == "falls"


def test_logits_whose_scale_grows_towards_the_boundary_do_not_hold():
    """Every gradient is honest, and of the cross-entropy and the margin it leads away from where the class changes."""
    r = np.random.default_rng(0)
    centres, y = r.normal(size=(4, 32)), r.integers(0, 4, 32).astype(np.int32)
    x = np.clip(0.5 + 0.04 * centres[y] + 0.02 * r.normal(size=(32, 32)), 0, 1).astype(np.float32)

    def inverted(w, x):
        z = (x - 0.5) @ w
        first, second = jnp.split(jax.lax.top_k(z, 2)[0], 2, axis=1)
        return z / ((first - second) ** 2 + 1e-3)

    model = jaxsec.bind(inverted, jnp.asarray(centres.T, jnp.float32))
    row = evaluate(model, x, y, threat=jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0), key=KEY, min_rows=32, max_rows=32).rows[0]
    assert row.clean == 1.0 and row.naive > 0.5 and row.adaptive < 0.1 and row.verdict == "falls"


@pytest.mark.parametrize(("common", "said"), [(1e3, "does not change as its gradient says"), (1e7, "lost in float32's rounding")])
def test_what_all_logits_have_in_common_hides_no_false_slopes(common, said):
    r = np.random.default_rng(0)
    centres, y = r.normal(size=(4, 32)), r.integers(0, 4, 32).astype(np.int32)
    x = np.clip(0.5 + 0.04 * centres[y] + 0.02 * r.normal(size=(32, 32)), 0, 1).astype(np.float32)

    def hiding(w, x):
        shown = jnp.arange(32)[None] < 20
        return jnp.where(shown, x, jax.lax.stop_gradient(x)) @ w + common

    row = evaluate(
        jaxsec.bind(hiding, jnp.asarray(centres.T, jnp.float32)), x, y, threat=jaxsec.LInf(eps=0.05, lo=0.0, hi=1.0), key=KEY
    ).rows[0]
    assert any(said in note for note in row.notes), row.notes
    assert (row.verdict == "masked") == (common < 1e6)


@pytest.mark.parametrize("height", [0.0, 0.3, 20.0])
def test_a_ripple_whose_gradient_is_true_at_each_point_does_not_hold(height):
    r, eps, n = np.random.default_rng(0), 0.1, 144
    sides = np.sign(r.normal(size=n)).astype(np.float32) / n
    x = r.uniform(0.3, 0.7, (16, n)).astype(np.float32)
    x += (1.05 * eps - (x - 0.5) @ sides)[:, None] * np.sign(sides)  # further than the honest part of the slope leads

    def rippled(w, x):
        v, k = x - 0.5, 2 * jnp.pi / (0.04 * eps)
        s = v @ w + jnp.sum((height / n) * jnp.sin(k * v[:, ::2]) / k, axis=1)
        return jnp.stack([s, -s], axis=1)

    how = {"method": jaxsec.PGD(steps=5), "adaptive_method": jaxsec.PGD(steps=5), "min_rows": 16, "max_rows": 16}
    row = evaluate(
        jaxsec.bind(rippled, jnp.asarray(sides)), x, np.zeros(16, int), threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), key=KEY, **how
    ).rows[0]
    assert row.adaptive == 1.0
    assert (row.verdict, any("does not change as its gradient says" in note for note in row.notes)) == (
        ("masked", True) if height > 1 else ("holds", False)
    )


def test_ties_and_coarse_numbers_are_not_taken_for_false_slopes():
    r = np.random.default_rng(0)
    centres, y = r.normal(size=(3, 36)), r.integers(0, 3, 24).astype(np.int32)
    x = np.clip(0.5 + 0.1 * centres[y], 0, 1).astype(np.float32)
    how = {"key": KEY, "method": jaxsec.PGD(steps=5), "adaptive_method": jaxsec.PGD(steps=5), "min_rows": 32, "max_rows": 32}
    threat = jaxsec.LInf(eps=4 / 255, lo=0.0, hi=1.0)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):

        def linear(w, x, dtype=dtype):
            return ((x - 0.5).astype(dtype) @ w.astype(dtype)).astype(jnp.float32)

        row = evaluate(jaxsec.bind(linear, jnp.asarray(centres.T, jnp.float32)), x, y, threat=threat, **how).rows[0]
        assert row.adaptive > 0.9 and row.verdict == "holds", dtype

    def pooled(w, x):
        top = jnp.max(x, axis=1, keepdims=True)
        return jnp.concatenate([top, 1 - top], axis=1) * w

    flat = jnp.broadcast_to(jnp.array([0.1, 0.9] * 8)[:, None], (16, 36))
    row = evaluate(jaxsec.bind(pooled, jnp.float32(3)), flat, jnp.array([1, 0] * 8), threat=threat, **how).rows[0]
    assert row.adaptive == 1.0 and row.verdict == "holds"


def half_hidden(params, x, key=None, dtype=None):
    """A linear margin of which an attack along the gradient sees the part of some features."""
    x = x.reshape(len(x), -1) - 0.5
    if dtype is not None:
        x = x.astype(dtype).astype(x.dtype)
    m = x @ params["seen"] + jax.lax.stop_gradient(x @ params["hidden"])
    z = jnp.stack([3 + 3 * m, jnp.zeros_like(m)], axis=1)
    return z if key is None else z + 1e-3 * jax.random.normal(key, z.shape)


def test_gradients_that_leave_out_a_part_are_false():
    """Each part alone turns no row, and no search without gradients finds both in so many dimensions; a draw changes nothing about it."""
    r, n, eps = np.random.default_rng(0), 784, 0.1
    w, seen = r.choice([-1, 1], n) * r.uniform(0.5, 1.5, n), np.arange(n) < 400
    parts = {"seen": 0.8 * w * seen / np.abs(w[seen]).sum(), "hidden": 0.4 * w * ~seen / np.abs(w[~seen]).sum()}
    params = {k: jnp.asarray(v / eps, jnp.float32) for k, v in parts.items()}
    x, y = np.full((8, n), 0.5, np.float32), np.zeros(8, np.int32)
    how = {"threat": jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), "key": KEY, "draws": 2, "judged": 4, "min_rows": 8, "max_rows": 8}
    models = {
        "hidden": jaxsec.bind(half_hidden, params),
        "drawn": jaxsec.bind(half_hidden, params, stochastic=True),
        "coarse": jaxsec.bind(functools.partial(half_hidden, dtype=jnp.bfloat16), params),
        "honest": jaxsec.bind(half_hidden, {"seen": params["seen"], "hidden": 0 * params["hidden"]}),
    }
    found = evaluate(models, x, y, method=jaxsec.PGD(steps=5), adaptive_method=jaxsec.PGD(steps=5), **how)
    assert {row.name: row.verdict for row in found.rows} == {"hidden": "masked", "drawn": "masked", "coarse": "holds", "honest": "holds"}
    assert all("does not change as its gradient says" in found[name].notes[-1] for name in ("hidden", "drawn"))
    assert "computes in half precision" in found["coarse"].notes[-1] and not found["honest"].notes


def test_steps_on_the_margin_fall_from_half_the_radius_to_nothing():
    steps = [float(margin_pgd(n).schedule(jnp.float32(i / n))) * 2.5 / n for n in (20, 40) for i in (0, n // 2, n - 1)]
    np.testing.assert_allclose(steps[::3], 0.5, rtol=1e-6)
    np.testing.assert_allclose(steps[1::3], 0.25, rtol=1e-6)
    assert max(steps[2::3]) < 0.005 and "Falling(first=4.0)" in repr(margin_pgd(20))
    assert jax.tree.structure(margin_pgd(20)) == jax.tree.structure(margin_pgd(20)), "or every evaluation compiles anew"


def test_what_cannot_be_evaluated():
    plain = jaxsec.bind(lambda w, x: x @ w, jnp.eye(2))
    x, y = jnp.array([[0.9, 0.1]]), jnp.array([0])
    how = {"threat": THREAT, "key": KEY}
    with pytest.raises(ValueError, match="models is empty"):
        evaluate({}, x, y, **how)
    with pytest.raises(ValueError, match="no rows"):
        evaluate(plain, x[:0], y[:0], **how)
    with pytest.raises(ValueError, match="judged is 0"):
        evaluate(plain, x, y, judged=0, **how)
    with pytest.raises(ValueError, match="draws is 0"):
        evaluate(plain, x, y, draws=0, **how)
    with pytest.raises(ValueError, match="labels from 5"):
        evaluate(plain, x, y + 5, **how)
    with pytest.raises(TypeError, match="key"):
        evaluate(plain, x, y, threat=THREAT, key=0)  # pyright: ignore[reportArgumentType]


def test_a_defence_that_nothing_can_move_is_not_called_masked():
    """Binary images behind one bit: every point of the set is rounded back to the clean image."""
    r = np.random.default_rng(3)
    centres, y = r.choice([0.0, 1.0], size=(4, 64)), r.integers(0, 4, 32)
    x = np.where(r.uniform(size=(32, 64)) < 0.05, 1 - centres[y], centres[y]).astype(np.float32)
    net = jaxsec.bind(linear, jnp.asarray((centres - 0.5).T, jnp.float32))
    how = {"threat": jaxsec.LInf(eps=0.3, lo=0.0, hi=1.0), "key": KEY, "method": PGD10, "adaptive_method": PGD10}
    (row,) = evaluate(defended(net, BitDepth(bits=1)), x, y, min_rows=32, max_rows=32, **how).rows
    assert row.adaptive == row.clean > 0.9 and row.verdict == "holds"


def noise(params, x):
    """One-hot answers of another net, and a wave that says nothing of them."""
    answers = jax.nn.softmax(1e6 * (x @ params["w"]))
    return 10 * answers + 0.05 * jnp.sin(2e3 * (x @ params["r"]))


def test_gradients_of_a_wave_do_not_hold(corners):
    params, x, y = corners
    how = {"threat": jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0), "key": KEY, "method": PGD10, "adaptive_method": PGD10}
    (row,) = evaluate(jaxsec.bind(noise, params), x, y, min_rows=32, max_rows=32, **how).rows
    assert row.adaptive > 0.5 and row.verdict == "masked" and any("as its gradient says" in note for note in row.notes)
    (row,) = evaluate(jaxsec.bind(lambda w, x: x @ w, params["w"]), x, y, min_rows=32, max_rows=32, **how).rows
    assert not any("as its gradient says" in note for note in row.notes)


@pytest.mark.parametrize("wavelength", [0.5, 2.0])
def test_a_warp_of_the_input_falls_to_gradients_averaged_over_the_set(wavelength):
    """Wide smooth waves turn the sign of half of the gradient at any point, and AutoAttack left two thirds of the rows."""
    r, eps, n = np.random.default_rng(0), 0.14, 196
    protos = 0.5 + 0.12 * r.choice([-1, 1], (4, n))
    y = np.arange(16) % 4
    x = np.clip(protos[y] + 0.02 * r.normal(size=(16, n)), 0, 1).astype(np.float32)

    def warped(w, x):
        k = 2 * jnp.pi / (wavelength * eps)
        return (x + 1.5 / k * jnp.sin(k * x) - 0.5) @ w

    model = jaxsec.bind(warped, jnp.asarray((protos - 0.5).T * 2, jnp.float32))
    row = evaluate(model, x, y, threat=jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), key=KEY, min_rows=16, max_rows=16).rows[0]
    assert row.naive > 0.9 and row.adaptive < 0.1 and row.verdict == "falls"


def test_gradients_that_are_false_on_some_rows_are_noted():
    """The same logits with and without another layer's derivative on four classes of ten."""
    r, k, n, few = np.random.default_rng(0), 10, 400, 4
    protos = 0.5 + np.where(np.arange(k) < few, 0.1, 0.45)[:, None] * r.choice([-1, 1], (k, n))
    y = np.arange(40) % k
    x = np.clip(protos[y] + 0.02 * r.normal(size=(40, n)), 0, 1).astype(np.float32)
    right, other = (protos - 0.5).T * np.where(np.arange(k) < few, 4.5, 1)[None], r.normal(size=(n, k))

    @jax.custom_vjp
    def head(z, g):
        return z

    head.defvjp(
        lambda z, g: (z, z),
        lambda z, c: tuple(jnp.where((jnp.argmax(z, 1) < few)[:, None] == hides, c, 0) for hides in (False, True)),
    )
    hidden = jaxsec.bind(lambda p, x: head((x - 0.5) @ p[0], (x - 0.5) @ p[1]), tuple(jnp.asarray(v, jnp.float32) for v in (right, other)))
    how = {"method": PGD, "adaptive_method": PGD, "min_rows": 64, "max_rows": 64}
    row = evaluate(hidden, x, y, threat=jaxsec.LInf(eps=0.12, lo=0.0, hi=1.0), key=KEY, **how).rows[0]
    assert row.adaptive > 0.9 and any("on 16 of 40 rows the model does not change as its gradient says" in note for note in row.notes)


def test_few_rows_that_stand_are_not_passed_over():
    """Of two rows that stand one is no majority; a verdict has its reason."""
    search = Search.__new__(Search)
    search.few = 6.0
    assert [search._few(np.arange(n)) for n in (2, 9, 40)] == [1.0, 4.5, 6.0]


def test_rows_of_half_precision_are_evaluated():
    model = jaxsec.bind(linear, jnp.eye(2, dtype=jnp.bfloat16))
    x = jnp.asarray([[0.9, 0.1], [0.2, 0.8]], jnp.bfloat16)
    row = evaluate(model, x, jnp.array([0, 1]), threat=THREAT, key=KEY, method=PGD, adaptive_method=PGD).rows[0]
    assert row.clean == 1.0 and row.adaptive <= row.naive
