"""Recipes by name: every one of them trains, words become settings, and what is wrong with words is said."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from train_kit import LINF, blobs, mlp, weights

import jaxsec
from jaxsec import train
from jaxsec.train._catalogue import parts_of
from jaxsec.train._losses import cross_entropy
from jaxsec.train._step import train_step

X, Y = blobs(32)
KEY = jax.random.key(5)
TEACHER = jaxsec.bind(mlp, weights(7))
# Settings that make a recipe small, or that it cannot do without.
SMALL = {
    **{key: {"sigma": "0.1"} for key in ("gaussian", "clean-logit-pairing", "logit-squeezing")},
    **{key: {"steps": "2"} for key in ("pgd-at", "trades", "mart", "sabr", "mtl-ibp", "ard", "rslad", "alp")},
    **{key: {"weight": "0.01"} for key in ("l1", "l2", "spectral", "input-gradient", "jacobian")},
    "smoothadv": {"sigma": "0.1", "noises": "2", "steps": "2"},
    "consistency": {"sigma": "0.1"},
    "macer": {"sigma": "0.1", "noises": "2"},
    "free-at": {"repeat": "2"},
    "lipschitz": {"normalise": "true"},
}


def named(name, **changes):
    threat = jaxsec.L2(eps=0.1) if name == "lipschitz" else LINF
    settings = {k: v for part in name.split("+") for k, v in SMALL.get(part, {}).items()}
    return train.recipe_named(name, threat=threat, teacher=TEACHER, settings={**settings, **changes})


def fitted(recipe, epochs=4):
    return train.fit(
        mlp, (X, Y), variables=weights(2), recipe=recipe, epochs=epochs, batch_size=16, validation=(X, Y), validate_every=epochs, key=KEY,
        validation_attack=jaxsec.FGSM(), progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*train.RECIPES, *(f"pgd-at+{w}" for w in train.WRAPPERS)])
def test_every_recipe_trains_by_name_and_a_change_of_its_numbers_compiles_nothing(name):
    recipe = named(name)
    made = fitted(recipe)
    assert made.rollbacks == 0 and all(np.isfinite(v) for row in made.history for v in row.values() if isinstance(v, float))
    moved = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), made.net.params, weights(2))
    assert max(jax.tree.leaves(moved)) > 1e-5
    assert ("validation_robust" in made.history[-1]) == bool(recipe.threats)
    assert ("validation_noisy" in made.history[-1]) == (recipe.noise is not None)
    before = train_step._cache_size()
    fitted(jax.tree.map(lambda v: v * 0.9 if isinstance(v, float) and 0 < v < 1 else v, recipe))
    assert train_step._cache_size() == before


def test_parts_and_settings():
    recipe = named("trades+awp+mixup", beta="3", gamma="0.02", **{"trades.start": "uniform", "awp.start": "0.5"})
    assert [type(r).__name__ for r in (recipe, recipe.recipe, recipe.recipe.recipe)] == ["Mixup", "AWP", "TRADES"]
    inner = recipe.recipe.recipe
    assert (inner.beta, inner.start, inner.steps, recipe.recipe.gamma, recipe.recipe.start) == (3.0, "uniform", 2, 0.02, 0.5)
    assert train.recipe_named("standard+jacobian", settings={"weight": "1", "projections": "none"}).projections is None
    assert parts_of("standard + l2") == ["standard", "l2"]
    assert train.settings_of("gaussian")["sigma"] is dataclasses.MISSING and "threat" not in train.settings_of("pgd-at")
    assert train.takes("trades+awp", "gamma") and not train.takes("trades", "gamma") and not train.takes("magic", "gamma")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("magic", {}, "the recipe is 'magic'; did you mean macer?; allowed: "),
        ("awp", {}, "goes around another one, as in pgd-at+awp"),
        ("trades+magic", {}, "has 'magic' after a +"),
        ("trades+awp+awp", {}, "twice"),
        ("trades", {"gamma": "1"}, "no setting 'gamma'"),
        ("trades", {"awp.beta": "1"}, "no setting 'awp.beta'"),
        ("trades", {"threat": "1"}, "no setting 'threat'"),
        ("trades+awp", {"start": "uniform"}, "a setting of trades and of awp; say which"),
        ("trades", {"steps": "2.5"}, "a whole number is needed"),
        ("trades", {"beta": "much"}, "a number is needed"),
        ("pgd-at", {"train_mode": "yes"}, "allowed: true, false"),
        ("gaussian", {}, "needs a value for sigma, such as sigma=0.25"),
        ("standard+l2", {}, "needs a value for weight"),
    ],
)
def test_what_is_wrong_with_words(name, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        train.recipe_named(name, threat=LINF, settings=settings)


def test_missing_threat_and_teacher():
    with pytest.raises(ValueError, match="needs a threat"):
        train.recipe_named("trades")
    with pytest.raises(ValueError, match="needs a teacher"):
        train.recipe_named("ard", threat=LINF)


def test_a_schedule_is_refused_where_there_is_one_or_nothing_to_schedule():
    for recipe, said in (
        (train.IBPTraining(threat=LINF), "grows eps by itself"),
        (train.Curriculum(recipe=train.PGDAT(threat=LINF)), "grows eps by itself"),
        (train.Standard(), "no threat whose eps could grow"),
    ):
        with pytest.raises(ValueError, match=said):
            train.Curriculum(recipe=recipe).check(train.net_of(mlp, weights()), jnp.asarray(X))


def test_wrappers_hand_on_what_the_loop_asks():
    single = train.Curriculum(recipe=train.AWP(recipe=train.FastAT(threat=LINF)))
    assert single.single_step and single.threats[0] is LINF and single.noise is None and not single.shares_pass
    noisy = train.Mixup(recipe=train.GaussianAugmentation(sigma=0.3))
    assert noisy.noise == 0.3 and not noisy.grows
    free = train.Curriculum(recipe=train.FreeAT(threat=LINF, repeat=3))
    assert free.replays == 3 and free.shares_pass
    # a curriculum around an ordinary recipe has an objective, and may itself be wrapped
    grown = train.AWP(recipe=train.Curriculum(recipe=train.PGDAT(threat=LINF)))
    grown.check(train.net_of(mlp, weights()), jnp.asarray(X))
    assert float(grown.at(jnp.float32(0.25)).threats[0].eps) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="free-at"):
        train.AWP(recipe=free.at(0.5)).check(train.net_of(mlp, weights()), jnp.asarray(X))


def test_recipes_know_the_adaptive_attack():
    model = jaxsec.bind(mlp, weights(3))
    assert named("trades").defence(model).surrogates == ()
    for recipe in (named("defensive-distillation", temperature="20"), named("defensive-distillation+l2", temperature="20")):
        (surrogate,) = recipe.defence(model).surrogates
        np.testing.assert_allclose(20 * np.asarray(surrogate(X)), model(X), rtol=1e-5)


def test_adversarial_training_with_a_patch():
    """The same recipe, another threat: what it learns from differs from the row in one square only."""
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(6, 8, 8, 1)), jnp.float32)
    y, net = jnp.arange(6) % 3, train.net_of(mlp, weights(1, inputs=64))
    threat = jaxsec.Patch(size=3, layout="hwc", lo=0.0, hi=1.0)
    recipe = train.PGDAT(threat=threat, steps=4, step_size=0.5)
    keys = jaxsec.core.row_keys(KEY, jnp.arange(6))
    worst = recipe.prepare(net, x, y, keys)
    assert bool(jnp.all(threat.contains(x, worst)))
    changed = np.asarray(jnp.any(worst != x, axis=-1))
    assert all(0 < c.sum() <= 9 for c in changed)
    before, after = (np.asarray(cross_entropy(net(v), y)) for v in (x, worst))
    assert (after > before).all()
    made = train.fit(mlp, (np.asarray(x), np.asarray(y)), variables=weights(1, inputs=64), recipe=recipe, epochs=2, batch_size=6, key=KEY)
    assert np.isfinite(made.history[-1]["loss"])


def test_a_net_that_draws_random_numbers_is_trained_adversarially():
    """The adversary asks with each row's own key; a row is met with the same draws in every step of its search."""
    x = np.random.default_rng(0).uniform(size=(12, 8, 8, 1)).astype(np.float32)
    y = (np.arange(12) % 3).astype(np.int32)
    net = train.defended(train.net_of(mlp, weights(1, inputs=64)), train.RandomAblation(keep=40))
    assert net.draws
    for name in ("pgd-at", "trades"):
        made = train.fit(net, (x, y), recipe=named(name), epochs=1, batch_size=6, key=KEY, progress=False)
        assert np.isfinite(made.history[-1]["loss"])


def test_normalised_nets_stay_of_constant_one():
    recipe = train.LipschitzMargin(normalise=True, threat=jaxsec.L2(eps=0.1))
    made = fitted(recipe, epochs=6)
    net = train.net_of(mlp, weights(2))
    assert train.lipschitz_constant(net, X) > 1.5
    assert train.lipschitz_constant(made.net, X) < 1.05
    with pytest.raises(ValueError, match="normalise=true"):
        train.LipschitzMargin().check(net, jnp.asarray(X))
    # of constant 1 now, and not for every weight: it would grow with the first update
    eye = train.net_of(_linear, jnp.eye(6, 3))
    with pytest.raises(ValueError, match="whatever its weights"):
        train.LipschitzMargin().check(eye, jnp.asarray(X))
    with pytest.raises(ValueError, match="take L2"):
        train.LipschitzMargin(normalise=True, threat=LINF).check(net, jnp.asarray(X))


def _linear(params, x):
    return x @ params
