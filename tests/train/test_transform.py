"""Models behind transformations: equal values with and without the adversary's derivatives, keys, nets, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.train import net_of
from jaxsec.train._transform import Transform, adaptive, defended
from jaxsec.train._transform_code import BitDepth, Thermometer
from jaxsec.train._transform_filter import Bilateral, GaussianBlur, MedianFilter, TotalVariation
from jaxsec.train._transform_jpeg import JPEG
from jaxsec.train._transform_random import RandomAblation, RandomCrop, RandomResizePad

X = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
KEYS = jax.random.split(jax.random.key(1), 3)
FLAT = [BitDepth(bits=2), JPEG(quality=30), Thermometer(levels=4)]  # whose own derivative is zero everywhere
EVERY = [
    *FLAT,
    MedianFilter(window=3),
    GaussianBlur(sigma=0.8, radius=2),
    Bilateral(radius=1),
    TotalVariation(weight=0.1, iterations=5),
    TotalVariation(weight=0.1, iterations=5, keep=0.5),
    RandomResizePad(size=9, smallest=7),
    RandomCrop(side=6),
    RandomAblation(keep=20),
    RandomAblation(keep=20, complement=True),
]


def names(transforms):
    return [f"{t.name}{i}" for i, t in enumerate(transforms)]


def readout(w, x):
    """Two classes, from all values of a row of any shape."""
    x = x.reshape(x.shape[0], -1)
    return x @ w[: x.shape[1]]


W = jax.random.normal(jax.random.key(2), (300, 2))
MODEL = jaxsec.bind(readout, W)


@jax.jit
def answer(model, x, keys):
    return model(x, keys if model.stochastic else None)


@jax.jit
def slope(model, x, keys):
    return jax.grad(lambda v: answer(model, v, keys)[:, 0].sum())(x)


@jax.jit
def slopes(model, twin, x, keys):
    return slope(model, x, keys), slope(twin, x, keys)


@pytest.mark.parametrize("transform", EVERY, ids=names(EVERY))
def test_the_twin_has_the_same_values_and_useful_gradients(transform):
    model = defended(MODEL, transform)
    twin = adaptive(model)
    assert model.stochastic == twin.stochastic == transform.stochastic
    # asked alone: where a program has derivatives as well, XLA may fuse, and so round, the two differently
    assert np.array_equal(answer(model, X, KEYS), answer(twin, X, KEYS))
    own, seen = slopes(model, twin, X, KEYS)
    assert np.all(np.isfinite(own)) and np.all(np.isfinite(seen))
    assert bool(np.any(own)) == (transform not in FLAT)
    assert np.all(np.any(seen.reshape(3, -1), axis=1))
    assert adaptive(twin, "true").apply == model.apply == defended(MODEL, transform).apply


@pytest.mark.parametrize("transform", FLAT[:2], ids=names(FLAT[:2]))
def test_straight_through_is_the_gradient_of_the_model_at_the_transformed_row(transform):
    twin = defended(MODEL, transform, bpda="identity")
    np.testing.assert_array_equal(slope(twin, X, KEYS), jnp.broadcast_to(W[:64, 0].reshape(1, 8, 8, 1), X.shape))


def test_the_gradient_is_taken_at_the_transformed_row():
    def square(w, x):
        return jnp.stack([x[:, 0] ** 2, w[None] - x[:, 0]], axis=1)

    twin = defended(jaxsec.bind(square, jnp.float32(1.0).reshape(())), BitDepth(bits=1), bpda=True)
    # 0.7 is shown as 1, where the square has the slope 2
    np.testing.assert_allclose(jax.grad(lambda v: twin(v)[0, 0])(jnp.array([[0.7]])), [[2.0]])


def test_surrogates_of_filters_are_what_they_say():
    up = jax.random.normal(jax.random.key(3), X.shape)
    mean = jax.vjp(MedianFilter(window=3).surrogate, X)[1](up)[0]
    # an interior pixel is in nine windows, each a mean of nine
    np.testing.assert_allclose(mean[1, 4, 4, 0], up[1, 3:6, 3:6, 0].mean(), rtol=1e-5)
    frozen = Bilateral(radius=1, sigma_range=0.3)
    # a linear map with its weights held: along x it is the filter itself
    along = jax.jit(lambda x: jax.jvp(frozen.surrogate, (x,), (x,))[1])(X)
    np.testing.assert_allclose(along, jax.jit(frozen.apply)(X), rtol=1e-5)


def test_wrappers_nest_and_the_twin_reaches_through_all_of_them():
    model = defended(defended(MODEL, BitDepth(bits=2)), MedianFilter(window=1)).preprocessed(mean=0.1)
    assert not np.any(slope(model, X, KEYS))
    assert np.all(slope(adaptive(model), X, KEYS))
    assert adaptive(MODEL).apply == MODEL.apply


RANDOM = [t for t in EVERY if t.stochastic]


@pytest.mark.parametrize("transform", RANDOM, ids=names(RANDOM))
def test_a_rows_draw_is_its_own_keys(transform):
    apply = jax.jit(transform.apply)
    whole = apply(X, KEYS)
    moved = KEYS.at[0].set(jax.random.key(99))
    other = apply(jnp.roll(X, 1, axis=0).at[1].set(X[1]), moved)
    assert np.array_equal(other[1], whole[1])
    several = apply(jnp.broadcast_to(X[:1], X.shape), KEYS)
    assert not np.array_equal(several[0], several[1]) or not np.array_equal(several[1], several[2])
    with pytest.raises(TypeError, match="random"):
        jax.eval_shape(transform.apply, X)


def test_other_numbers_weights_and_keys_do_not_retrace():
    traced = []

    def counted(w, x):
        traced.append(None)
        return readout(w, x)

    ask = jax.jit(lambda model, keys: model(X, keys if model.stochastic else None))
    for first, second in (
        (JPEG(quality=20), JPEG(quality=np.int64(80))),
        (BitDepth(bits=1), BitDepth(bits=4, hi=2.0)),
        (TotalVariation(weight=0.1, keep=0.5, iterations=2), TotalVariation(weight=1, keep=np.float32(0.9), iterations=2)),
    ):
        one = ask(defended(jaxsec.bind(counted, W), first), KEYS)
        before = len(traced)
        two = ask(defended(jaxsec.bind(counted, 2 * W), second), jax.random.split(jax.random.key(7), 3))
        assert len(traced) == before and not np.array_equal(2 * one, two)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_an_ensemble_averages_over_its_draws(combine):
    crop = RandomCrop(side=5)
    single, many = defended(MODEL, crop), defended(MODEL, crop, draws=4, combine=combine)
    z = np.stack([answer(single, X, jax.vmap(jax.random.fold_in, (0, None))(KEYS, d)) for d in range(4)]).astype(np.float64)
    if combine == "probabilities":
        p = np.exp(z) / np.exp(z).sum(2, keepdims=True)
        np.testing.assert_allclose(answer(many, X, KEYS), np.log(p.mean(0)), atol=1e-5)
    else:
        np.testing.assert_allclose(answer(many, X, KEYS), z.mean(0), atol=1e-5)
    assert not np.allclose(z[0], z[1])


def noisy(w, x, key):
    return readout(w, x) + jax.random.normal(key, (1, 2))


def test_a_model_that_draws_by_itself_draws_apart_from_the_transformation():
    inner = jaxsec.bind(noisy, W, stochastic=True)
    model = defended(inner, BitDepth(bits=16))
    assert model.stochastic
    noise = answer(model, X, KEYS) - readout(W, X)
    assert np.ptp(noise[:, 0]) > 0.1
    ablated = defended(inner, RandomAblation(keep=64))
    np.testing.assert_allclose(answer(ablated, X, KEYS) - readout(W, X), noise, atol=2e-3)


def test_a_net_trains_behind_a_transformation_that_nothing_trains():
    net = defended(net_of(readout, W), Thermometer(levels=3, softness=2.0), bpda=True)
    assert jax.tree.leaves(net.params)[0].shape == W.shape and not net.draws
    recipe = jaxsec.train.PGDAT(threat=jaxsec.LInf(eps=0.2, lo=0.0, hi=1.0), steps=1, start="clean")
    y = jnp.array([0, 1, 0])
    loss, gradient = jax.jit(jax.value_and_grad(lambda p: recipe.loss(net.replace(params=p), X, y, KEYS[0])[0]))(net.params)
    assert np.isfinite(loss) and np.any(gradient)
    model = net.model()
    np.testing.assert_allclose(answer(model, X, KEYS), readout(W, Thermometer(levels=3).apply(X)), rtol=1e-5)
    assert model.apply.passage.backward == "surrogate"
    drawing = defended(net_of(readout, W), RandomAblation(keep=9))
    assert drawing.draws and drawing.model().stochastic
    (logits, new), evaluated = jax.jit(lambda net: (net.training(X, KEYS), net(X, KEYS)))(drawing)
    assert np.array_equal(logits, evaluated)
    np.testing.assert_allclose(logits, answer(drawing.model(), X, KEYS), rtol=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(drawing)


def test_the_transformation_of_a_bound_model_has_no_gradient():
    model = defended(MODEL, GaussianBlur(sigma=1.0))
    gradient = jax.grad(lambda p: model.replace(params=p)(X).sum())(model.params)
    assert not np.any(gradient["transform"].sigma) and np.any(gradient["inner"])


def test_half_precision_rows_stay_half():
    x = X.astype(jnp.bfloat16)
    for transform in EVERY:
        assert jax.eval_shape(transform.apply, x, KEYS if transform.stochastic else None).dtype == jnp.bfloat16


@pytest.mark.parametrize("layout", ["chw", "hw"])
def test_layouts_are_one_image(layout):
    move = (lambda v: jnp.moveaxis(v, -1, 1)) if layout == "chw" else (lambda v: v[..., 0])
    for transform in (JPEG(quality=30), MedianFilter(window=2), RandomResizePad(size=9, smallest=7)):
        keys = KEYS if transform.stochastic else None
        there = jax.jit(transform.apply)(move(X), keys)
        np.testing.assert_allclose(there, move(jax.jit(transform.apply)(X, keys)), atol=2e-6)


BAD = [
    (lambda: BitDepth(bits=0), "bits=0"),
    (lambda: BitDepth(bits=2.5), r"bits=2\.5"),
    (lambda: BitDepth(hi=0.0), "hi - lo"),
    (lambda: Thermometer(levels=1), "levels=1"),
    (lambda: Thermometer(softness=0.0), "softness"),
    (lambda: MedianFilter(window=0), "window=0"),
    (lambda: GaussianBlur(sigma=0.0), "sigma"),
    (lambda: GaussianBlur(radius=0), "radius"),
    (lambda: Bilateral(sigma_range=-1.0), "sigma_range"),
    (lambda: TotalVariation(weight=-0.1), "weight"),
    (lambda: TotalVariation(keep=1.5), "keep"),
    (lambda: TotalVariation(iterations=0), "iterations"),
    (lambda: JPEG(quality=0), "quality=0"),
    (lambda: RandomResizePad(size=6, smallest=7), "size=6"),
    (lambda: RandomCrop(side=0), "side=0"),
    (lambda: RandomAblation(keep=0), "keep=0"),
]


@pytest.mark.parametrize("make, said", BAD, ids=[said for _, said in BAD])
def test_settings_out_of_range(make, said):
    with pytest.raises(ValueError, match=said):
        defended(MODEL, make())


SHAPES = [
    (MedianFilter(), (2, 16), "images"),
    (MedianFilter(), (2, 3, 8, 3), "two ways"),
    (JPEG(), (2, 8, 8, 4), "4 channels"),
    (RandomCrop(side=9), (2, 8, 8, 1), "side=9"),
    (RandomAblation(keep=65), (2, 8, 8, 1), "keep=65"),
    (RandomAblation(keep=4, complement=True), (2, 8, 8), "no channels"),
    (Thermometer(), (2, 5, 6, 7), "layout"),
]


@pytest.mark.parametrize("transform, shape, said", SHAPES, ids=names([t for t, _, _ in SHAPES]))
def test_rows_that_cannot_be_transformed(transform, shape, said):
    with pytest.raises(ValueError, match=said):
        transform.apply(jnp.zeros(shape), KEYS[:2] if transform.stochastic else None)


def test_wrong_choices_of_the_wrapper():
    with pytest.raises(ValueError, match="bpda"):
        defended(MODEL, BitDepth(), bpda="no")
    with pytest.raises(ValueError, match="combine"):
        defended(MODEL, BitDepth(), combine="votes")
    with pytest.raises(ValueError, match="draws is 2"):
        defended(MODEL, BitDepth(), draws=2)
    with pytest.raises(ValueError, match="draws is 0"):
        defended(MODEL, RandomCrop(side=4), draws=0)
    with pytest.raises(ValueError, match="backward"):
        adaptive(MODEL, "sideways")
    with pytest.raises(ValueError, match="straight through"):
        jax.grad(lambda v: defended(MODEL, Thermometer(levels=2), bpda="identity")(v).sum())(X)
    with pytest.raises(TypeError, match="one key per row"):
        defended(MODEL, RandomCrop(side=4))(X)


def test_a_transformation_of_ones_own():
    class Halved(Transform):
        name, source = "halved", "-"

        def apply(self, x, keys=None):
            return jnp.floor(x * 2) / 2

    Halved = jaxsec.core.struct(Halved)
    assert np.array_equal(answer(defended(MODEL, Halved()), X, KEYS), answer(MODEL, jnp.floor(X * 2) / 2, KEYS))
