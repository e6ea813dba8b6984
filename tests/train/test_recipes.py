"""Each recipe's loss against the paper's formula in float64, and what every recipe promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_kit import LINF, blobs, ce, kl, log_softmax, mlp, weights

import jaxsec
from jaxsec import train
from jaxsec.core import row_keys
from jaxsec.train._inner import ascend

X, Y = blobs(12)
X, Y = jnp.asarray(X), jnp.asarray(Y)
NET = train.net_of(mlp, weights())
KEY = jax.random.key(3)
KEYS = row_keys(KEY, jnp.arange(len(X)))
L2 = jaxsec.L2(eps=0.3, lo=0.0, hi=1.0)
PLAIN = [
    train.Standard(),
    train.PGDAT(threat=LINF, steps=3),
    train.PGDAT(threat=L2, steps=3, label_smoothing=0.1),
    train.TRADES(threat=LINF, steps=3),
    train.MART(threat=LINF, steps=3),
    train.FastAT(threat=LINF),
    train.FastAT(threat=LINF, align=0.2),
    train.FreeAT(threat=LINF),
    train.UniversalAT(threat=LINF),
    train.AWP(recipe=train.PGDAT(threat=LINF, steps=2)),
    train.Curriculum(recipe=train.PGDAT(threat=LINF, steps=2)),
    train.MultiNorm.over(LINF, L2, steps=2),
    train.MultiNorm.over(LINF, L2, steps=2, combine="avg"),
    train.MultiNorm.over(LINF, L2, steps=2, combine="extreme"),
]
_ids = [f"{i}-{r.name}" for i, r in enumerate(PLAIN)]


def loss_of(recipe, y=Y):
    @jax.jit
    def run(params):
        return recipe.loss(jaxsec.bind(mlp, params), X, y, KEY)

    return run(NET.params)


@pytest.mark.parametrize("recipe", PLAIN, ids=_ids)
def test_loss_is_differentiable_deterministic_and_takes_distributions(recipe):
    def run(params, y):
        return recipe.loss(jaxsec.bind(mlp, params), X, y, KEY)

    both = jax.jit(jax.value_and_grad(run, has_aux=True))
    (loss, metrics), gradient = both(NET.params, Y)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert all(np.shape(v) == () for v in metrics.values())
    assert float(both(NET.params, Y)[0][0]) == float(loss)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-4
    if recipe.name not in ("awp", "curriculum", "multi-norm"):  # which pass labels on
        (soft, _), _ = both(NET.params, jax.nn.one_hot(Y, 3))
        np.testing.assert_allclose(soft, loss, rtol=2e-5)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("start", ["uniform", "gaussian", "clean"])
def test_ascent_stays_inside_and_climbs(threat, start):
    def objective(v):
        return train._losses.cross_entropy(NET(v), Y)

    at = ascend(objective, X, threat, KEYS, steps=10, start=start)
    assert threat.contains(X, at).all()
    assert (objective(at) > objective(X)).all()


def test_trades_is_equation_5():
    recipe = train.TRADES(threat=LINF, steps=3, beta=2.5, label_smoothing=0.2)
    worst = recipe.prepare(NET, X, Y, KEYS)
    z, w = NET(X), NET(worst)
    log_p = log_softmax(z)
    target = 0.8 * np.eye(3)[np.asarray(Y)] + 0.2 / 3
    expected = (-(target * log_p).sum(1) + 2.5 * kl(z, w)).mean()
    np.testing.assert_allclose(loss_of(recipe)[0], expected, rtol=2e-5)
    assert kl(z, w).mean() > 10 * kl(z, NET(recipe.replace(steps=1, step_size=1e-6).prepare(NET, X, Y, KEYS))).mean()


def test_mart_is_equation_11():
    recipe = train.MART(threat=LINF, steps=3, beta=1.7)
    worst = recipe.prepare(NET, X, Y, KEYS)
    z, w, y, rows = NET(X), NET(worst), np.asarray(Y), np.arange(len(X))
    p, q = np.exp(log_softmax(z)), np.exp(log_softmax(w))
    others = np.where(np.eye(3)[y] > 0, 0, q).max(1)
    expected = (-np.log(q[rows, y]) - np.log(1 - others) + 1.7 * kl(z, w) * (1 - p[rows, y])).mean()
    np.testing.assert_allclose(loss_of(recipe)[0], expected, rtol=2e-5)


def test_pgd_at_is_cross_entropy_at_the_worst_point():
    recipe = train.PGDAT(threat=LINF, steps=3)
    expected = ce(NET(recipe.prepare(NET, X, Y, KEYS)), np.asarray(Y)).mean()
    np.testing.assert_allclose(loss_of(recipe)[0], expected, rtol=2e-5)
    assert expected > ce(NET(X), np.asarray(Y)).mean() + 0.01


@pytest.mark.parametrize("make", [train.PGDAT, train.FastAT, train.FreeAT], ids=lambda c: c.name)
def test_without_a_budget_it_is_standard_training(make):
    none = jaxsec.LInf(eps=0.0, lo=0.0, hi=1.0)
    np.testing.assert_allclose(loss_of(make(threat=none))[0], loss_of(train.Standard())[0], rtol=1e-6)


def test_fast_at_takes_one_step_of_the_size_it_says():
    recipe = train.FastAT(threat=LINF, step_size=0.5)
    at, near = recipe.prepare(NET, X, Y, KEYS)
    slope = jax.grad(lambda v: jnp.sum(train._losses.cross_entropy(NET(v), Y)))(near)
    expected = jnp.clip(jnp.clip(near + 0.05 * jnp.sign(slope), X - 0.1, X + 0.1), 0, 1)
    np.testing.assert_allclose(at, expected, atol=1e-6)


def test_fast_at_starts_anywhere_in_the_ball_and_ends_inside_the_domain():
    """Wong's start is not clipped to the domain; clipped, MNIST nets at 0.3 overfit to the step."""
    x = jnp.round(X)  # all at the domain's edges
    at, near = train.FastAT(threat=LINF).prepare(NET, x, Y, KEYS)
    outside = (near < 0) | (near > 1)
    assert 0.4 < float(outside.mean()) < 0.6
    assert float(jnp.abs(near - x).max()) <= 0.1 + 1e-6
    assert float(at.min()) >= 0 and float(at.max()) <= 1
    clipped = train.FastAT(threat=LINF, inside=True).prepare(NET, x, Y, KEYS)[1]
    assert np.array_equal(clipped, jnp.clip(near, 0, 1))
    limited = jaxsec.Box(lower=jnp.maximum(x - 0.1, 0), upper=jnp.minimum(x + 0.1, 1))
    assert bool(limited.contains(x, train.FastAT(threat=limited).prepare(NET, x, Y, KEYS)[1]).all())


def test_grad_align_is_equation_4():
    recipe = train.FastAT(threat=LINF, align=0.7)
    _, near = recipe.prepare(NET, X, Y, KEYS)

    def slope(v):
        return np.asarray(jax.grad(lambda v: jnp.sum(train._losses.cross_entropy(NET(v), Y)))(v), np.float64).reshape(len(X), -1)

    a, b = slope(X), slope(near)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    without = loss_of(train.FastAT(threat=LINF))[0]
    np.testing.assert_allclose(loss_of(recipe)[0], without + 0.7 * (1 - cosine).mean(), rtol=1e-4)


def test_free_at_moves_both_by_one_backward_pass():
    recipe = train.FreeAT(threat=LINF, step_size=0.5)
    carry = 0.05 * jnp.sign(X - 0.5)
    step = recipe.gradient(NET, X, Y, KEYS, carry)
    at = jnp.clip(X + carry, 0, 1)

    def loss(params, v):
        return jnp.mean(train._losses.cross_entropy(NET.replace(params=params)(v), Y))

    g, g_x = jax.grad(loss, (0, 1))(NET.params, at)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), step.gradient, g)
    np.testing.assert_allclose(step.carry, jnp.clip(carry + 0.05 * jnp.sign(g_x), -0.1, 0.1), atol=1e-6)


def test_the_adversary_of_trades_raises_the_divergence_from_the_clean_answer():
    """KL(p(x) || p(x')), as in algorithm 1; the other way round the steps differ."""
    threat, net = jaxsec.LInf(eps=0.5, lo=0.0, hi=1.0), train.net_of(mlp, weights(scale=4.0))
    recipe = train.TRADES(threat=threat, steps=1, step_size=0.06, start="uniform")
    near = threat.sample(jax.vmap(lambda key: jax.random.fold_in(key, 0))(KEYS), X)

    def stepped(of):
        def total(v):
            p, q = jax.nn.log_softmax(net(X)), jax.nn.log_softmax(net(v))
            return jnp.sum(jnp.exp(p) * (p - q)) if of == "clean" else jnp.sum(jnp.exp(q) * (q - p))

        return threat.project(X, near + 0.03 * jnp.sign(jax.grad(total)(near)))

    worst = recipe.prepare(net, X, Y, KEYS)
    np.testing.assert_allclose(worst, stepped("clean"), atol=1e-6)
    assert float(jnp.abs(worst - stepped("worst")).max()) > 1e-3


def test_a_universal_step_follows_the_mean_gradient():
    recipe = train.UniversalAT(threat=LINF, step_size=0.2)
    g = jax.grad(lambda v: jnp.sum(train._losses.cross_entropy(NET(X + v), Y)))(jnp.zeros((1, 6)))
    carry = recipe.gradient(NET, X, Y, KEYS, recipe.begin(NET, X)).carry
    np.testing.assert_allclose(carry, 0.02 * jnp.sign(g), atol=1e-7)


def test_universal_perturbation_is_one_for_all_and_climbs():
    recipe = train.UniversalAT(threat=LINF)
    carry = recipe.begin(NET, X)
    before = train._losses.cross_entropy(NET(X), Y).mean()
    for _ in range(15):
        carry = recipe.gradient(NET, X, Y, KEYS, carry).carry
    assert carry.shape == (1, 6) and float(jnp.abs(carry).max()) <= 0.1 + 1e-6
    after = train._losses.cross_entropy(NET(jnp.clip(X + carry, 0, 1)), Y).mean()
    assert after > before + 0.01


def test_awp_takes_the_gradient_at_weights_moved_by_gamma():
    inner = train.PGDAT(threat=LINF, steps=2)
    recipe = train.AWP(recipe=inner, gamma=0.02)
    worst = inner.prepare(NET, X, Y, KEYS)

    def plain(params):
        return inner.objective(NET.replace(params=params), worst, X, Y, KEYS)[0]

    g = jax.grad(plain)(NET.params)
    moved = {
        k: w + 0.02 * g[k] * jnp.linalg.norm(w) / jnp.linalg.norm(g[k]) if w.ndim > 1 else w for k, w in NET.params.items()
    }  # fmt: skip
    expected, slope = jax.value_and_grad(plain)(moved)
    found = recipe.gradient(NET, X, Y, KEYS, ())
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found.gradient, slope)
    assert found.loss > plain(NET.params) + 1e-3
    late = train.AWP(recipe=inner, gamma=0.02, start=0.5)
    np.testing.assert_allclose(late.at(jnp.float32(0.4)).gradient(NET, X, Y, KEYS, ()).loss, plain(NET.params), rtol=1e-6)


@pytest.mark.parametrize("shape", ["linear", "cosine", "smooth"])
def test_curriculum_grows_from_first_to_one(shape):
    recipe = train.Curriculum(recipe=train.PGDAT(threat=LINF), start=0.2, end=0.6, first=0.25, shape=shape)
    eps = [float(recipe.at(jnp.float32(t)).threats[0].eps) for t in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)]
    assert eps[0] == pytest.approx(0.025) and eps[1] == pytest.approx(0.025) and eps[-2:] == pytest.approx([0.1, 0.1])
    assert all(a < b for a, b in itertools.pairwise(eps[1:-1]))
    if shape == "linear":
        assert eps[3] == pytest.approx(0.1 * (0.25 + 0.75 * 0.5))


def test_multi_norm_takes_the_worst_the_mean_or_one():
    parts = [train.PGDAT(threat=t, steps=2) for t in (LINF, jaxsec.L2(eps=0.215, lo=0.0, hi=1.0))]
    found = [r.prepare(NET, X, Y, KEYS) for r in parts]
    losses = np.stack([ce(NET(v), np.asarray(Y)) for v in found])
    assert len({int(i) for i in losses.argmax(0)}) == 2  # else the rows would not tell max from one of the two
    np.testing.assert_allclose(loss_of(train.MultiNorm(recipes=tuple(parts)))[0], losses.max(0).mean(), rtol=2e-5)
    np.testing.assert_allclose(loss_of(train.MultiNorm(recipes=tuple(parts), combine="avg"))[0], losses.mean(), rtol=2e-5)
    one = float(loss_of(train.MultiNorm(recipes=tuple(parts), combine="extreme"))[0])
    assert min(abs(one - m) for m in losses.mean(1)) < 1e-5


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (train.PGDAT(threat=LINF, steps=0), "steps=0"),
        (train.PGDAT(threat=LINF, start="middle"), "start='middle'"),
        (train.TRADES(threat=LINF, statistics="none"), "statistics='none'"),
        (train.FastAT(threat=LINF, align=-1.0), "align=-1.0"),
        (train.TRADES(threat=LINF, beta=-3.0), "beta=-3.0"),
        (train.TRADES(threat=LINF, beta=float("nan")), "beta=nan"),
        (train.PGDAT(threat=LINF, step_size=-1.0), "step_size=-1.0"),
        (train.PGDAT(threat=LINF, label_smoothing=3.0), "label_smoothing=3.0"),
        (train.Standard(label_smoothing=-0.1), "label_smoothing=-0.1"),
        (train.FreeAT(threat=LINF, step_size=-1.0), "step_size=-1.0"),
        (train.FreeAT(threat=LINF, repeat=0), "repeat=0"),
        (train.FreeAT(threat=jaxsec.Box(lower=0.0, upper=1.0)), "Box"),
        (train.AWP(recipe=train.FreeAT(threat=LINF)), "free-at"),
        (train.Curriculum(recipe=train.PGDAT(threat=LINF), start=0.6, end=0.5), "start=0.6"),
        (train.MultiNorm.over(LINF), "1 recipes"),
        (train.MultiNorm.over(LINF, L2, combine="sum"), "combine='sum'"),
        (train.PGDAT(threat=jaxsec.LInf(eps=-0.1, lo=0.0, hi=1.0)), "-0.1"),
    ],
)
def test_mistakes_are_named(recipe, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace("[", r"\[")):
        recipe.check(NET, X)


def test_catalogue_makes_recipes_of_words():
    for name, cls in train.RECIPES.items():
        assert cls.name == name and cls.summary and cls.cost and cls.source
        assert isinstance(train.settings_of(name), dict)
    made = train.recipe_named("trades", threat=LINF, settings={"beta": "3", "steps": "4"})
    assert made.beta == 3.0 and made.steps == 4 and made.threat is LINF
    for settings, said in ({"gamma": "1"}, "no setting 'gamma'"), ({"steps": "4.5"}, "whole number"), ({"beta": "much"}, "a number"):
        with pytest.raises(ValueError, match=said):
            train.recipe_named("trades", threat=LINF, settings=settings)
    with pytest.raises(ValueError, match="needs a threat"):
        train.recipe_named("trades")
    with pytest.raises(ValueError, match="allowed: "):
        train.recipe_named("magic")
