"""The native convolution and its twin against XLA's own: values, gradients of first and second order, `vmap`, errors.

FFI calls under several devices gather, so these run on one of the eight.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsec._native import conv2d, conv2d_twin, dense

# x [N, H, W, C], kernel (KH, KW), O, stride, pads
CASES = {
    "one-channel": ((3, 7, 9, 1), (3, 3), 5, 1, ((0, 0), (0, 0))),
    "stride-2-uneven-pads": ((2, 8, 7, 3), (4, 2), 17, 2, ((1, 2), (0, 1))),
    "stride-above-kernel": ((2, 9, 8, 4), (2, 1), 3, 3, ((1, 0), (2, 2))),
    "pointwise": ((2, 5, 4, 6), (1, 1), 33, 1, ((0, 0), (0, 0))),
    "pointwise-strided": ((2, 5, 4, 6), (1, 1), 8, 2, ((0, 0), (0, 0))),
    "unread-rows": ((2, 10, 10, 2), (3, 3), 4, 4, ((0, 0), (0, 0))),
}


def arrays(shape, kernel, o, seed=0):
    r = np.random.default_rng(seed)

    def one(*s):
        return jnp.asarray(r.normal(size=s), jnp.float32)

    return one(*shape), one(*kernel, shape[-1], o), one(o)


def both(native: bool, request) -> None:
    if native:
        request.getfixturevalue("native")


@pytest.mark.parametrize("native", [True, False], ids=["native", "xla"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, native, request):
    both(native, request)
    shape, kernel, o, stride, pads = CASES[name]
    x, w, bias = arrays(shape, kernel, o)

    def ours(x, w, bias):
        return conv2d(x, w, bias, stride, pads, True, native)

    def theirs(x, w, bias):
        return conv2d_twin(x, w, bias, stride, pads, True)

    @jax.jit
    def everything(x, w, bias):
        y, pull = jax.vjp(ours, x, w, bias)
        z, push = jax.vjp(theirs, x, w, bias)
        g = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return (y, *pull(g)), (z, *push(g))

    for a, b in zip(*everything(x, w, bias), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("native", [True, False], ids=["native", "xla"])
def test_a_penalty_on_input_gradients_differentiates(native, request):
    both(native, request)
    shape, kernel, o, stride, pads = CASES["stride-2-uneven-pads"]
    x, w, bias = arrays(shape, kernel, o)

    def penalty(conv, x, w):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(conv(x, w))))(x) ** 2)

    ours = jax.jit(jax.grad(lambda x, w: penalty(lambda x, w: conv2d(x, w, bias, stride, pads, True, native), x, w), argnums=(0, 1)))
    theirs = jax.jit(jax.grad(lambda x, w: penalty(lambda x, w: conv2d_twin(x, w, bias, stride, pads, True), x, w), argnums=(0, 1)))
    for a, b in zip(ours(x, w), theirs(x, w), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(b))))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None)], ids=str)
def test_vmap_of_values_and_gradients(axes):
    shape, kernel, o, stride, pads = CASES["stride-2-uneven-pads"]
    x, w, bias = arrays(shape, kernel, o)
    x = jnp.stack([x, -x, 2 * x], axes[0]) if axes[0] is not None else x
    w = jnp.stack([w, -w, 3 * w]) if axes[1] is not None else w

    def grad(conv):
        return jax.jit(jax.vmap(jax.grad(lambda x, w: jnp.sum(jnp.sin(conv(x, w, bias, stride, pads, True)))), in_axes=axes))

    ours, theirs = grad(conv2d), grad(conv2d_twin)
    np.testing.assert_allclose(ours(x, w), theirs(x, w), rtol=1e-4, atol=1e-3)
    if axes == (0, None):
        text = ours.lower(x, w).as_text()
        assert text.count("jaxsec_conv2d") == 2 and "while" not in text, "images in a vmap must join the batch"


@pytest.mark.usefixtures("native")
def test_rows_do_not_depend_on_the_batch():
    x, w, bias = arrays((70, 6, 6, 3), (3, 3), 20)
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(conv2d(x, w, bias, 1, ((1, 1), (1, 1)), True)), has_aux=False))
    whole = run(x)[1]
    for rows in (1, 3, 64):
        np.testing.assert_array_equal(run(x[:rows])[1], whole[:rows])
    a, b = x.reshape(70, -1), jnp.asarray(np.random.default_rng(1).normal(size=(108, 30)), jnp.float32)
    product = jax.jit(dense)
    np.testing.assert_allclose(product(a, b), a @ b, rtol=1e-4, atol=1e-4)
    for rows in (1, 3, 64):
        np.testing.assert_array_equal(product(a[:rows], b), product(a, b)[:rows])


@pytest.mark.parametrize("native", [True, False], ids=["native", "xla"])
@pytest.mark.parametrize("axis", [0, 1])
def test_dense_makes_the_gradient_of_its_weights_as_they_lie_in_memory(native, axis, request):
    if native:
        request.getfixturevalue("native")
    r = np.random.default_rng(0)
    x, w = jnp.asarray(r.normal(size=(5, 12)), jnp.float32), jnp.asarray(r.normal(size=(12, 7)), jnp.float32)

    def run(x, w):
        return jnp.sum(jnp.sin(dense(x, w, native, axis)))

    lying = w.T if axis else w
    wanted = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), (0, 1))(x, w)
    found = jax.jit(jax.grad(run, (0, 1)))(x, lying)
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], wanted[1].T if axis else wanted[1], rtol=1e-4, atol=1e-5)
    # the derivative of the derivative goes through the other axis
    both = jax.grad(lambda w: jnp.sum(jnp.sin(jax.grad(run)(x, w))))(lying)
    twice = jax.grad(lambda w: jnp.sum(jnp.sin(jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)))(x, w))))(w)
    np.testing.assert_allclose(both, twice.T if axis else twice, rtol=1e-4, atol=1e-4)
    jaxpr = jax.make_jaxpr(jax.grad(run, 1))(x, lying).jaxpr
    (last,) = [eqn for eqn in jaxpr.eqns if jaxpr.outvars[0] in eqn.outvars]
    assert last.primitive.name != "transpose"


@pytest.mark.usefixtures("native")
def test_nan_stays_nan_and_zero_has_no_slope():
    w, bias = jnp.ones((1, 1, 1, 1)), jnp.zeros(1)
    x = jnp.asarray([jnp.nan, 0.0, -1.0, 2.0]).reshape(4, 1, 1, 1)
    y, pull = jax.vjp(lambda x: conv2d(x, w, bias, 1, ((0, 0), (0, 0)), True), x)
    np.testing.assert_array_equal(y.ravel(), [np.nan, 0, 0, 2])
    np.testing.assert_array_equal(pull(jnp.ones_like(y))[0].ravel()[1:], [0, 0, 1])


def test_forward_mode_is_refused():
    x, w, bias = arrays(*CASES["one-channel"][:3])
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: conv2d(x, w, bias, 1, ((0, 0), (0, 0)), False, False), (x,), (x,))


@pytest.mark.usefixtures("native")
def test_the_target_checks_its_shapes():
    from jaxsec._native._conv_call import Plan, convolve

    x, w, bias = arrays((2, 5, 5, 2), (3, 3), 16)
    plan = Plan(positions=(3, 3), stride=1, pad=(0, 0), phase=1, crop=(0, 0), out=(4, 3, 16), relu=False)
    with pytest.raises(Exception, match="do not cover the output"):
        jax.block_until_ready(convolve(plan, True, x, w, bias))
    with pytest.raises(Exception, match="do not agree"):
        jax.block_until_ready(convolve(plan, True, x, w[:, :, :1], bias))


@pytest.mark.parametrize("native", [True, False], ids=["native", "xla"])
def test_a_gradient_of_the_weights_gradient(native, request):
    """Linear in x and in g, so its derivatives are convolutions again; the bias's part too."""
    both(native, request)
    shape, kernel, o, stride, pads = CASES["stride-2-uneven-pads"]
    x, w, bias = arrays(shape, kernel, o)

    def penalty(conv, x, w, bias):
        dw, db = jax.grad(lambda w, bias: jnp.sum(jnp.sin(conv(x, w, bias))), argnums=(0, 1))(w, bias)
        return jnp.sum(dw**3) + jnp.sum(db**3)

    def run(conv):
        loss = functools.partial(penalty, lambda x, w, bias: conv(x, w, bias, stride, pads, True))
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, w, bias)

    for a, b in zip(run(lambda *args: conv2d(*args, native)), run(conv2d_twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(b))))


@pytest.mark.usefixtures("native")
def test_weight_gradients_of_every_row():
    """`vmap` of the gradient, as private training asks for it."""
    shape, kernel, o, stride, pads = CASES["stride-2-uneven-pads"]
    x, w, bias = arrays(shape, kernel, o)

    def rows(conv):
        grad = jax.grad(lambda w, bias, x: jnp.sum(jnp.sin(conv(x[None], w, bias, stride, pads, True))), argnums=(0, 1))
        return jax.jit(jax.vmap(grad, in_axes=(None, None, 0)))(w, bias, x)

    for a, b in zip(rows(conv2d), rows(conv2d_twin), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("native")
def test_training_transposes_no_activations():
    x, w, bias = arrays((16, 12, 12, 8), (3, 3), 16)
    grad = jax.jit(jax.grad(lambda w, bias: jnp.sum(jnp.sin(conv2d(x, w, bias, 1, ((1, 1), (1, 1)), True))), argnums=(0, 1)))
    text = grad.lower(w, bias).compile().as_text()
    assert text.count('custom_call_target="jaxsec_conv2d_weights"') == 1 and " convolution(" not in text
