"""Runs in a process with one CPU device (the suite has eight, where `tuned` runs on XLA); prints one JSON line per check."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

import jaxsec
from jaxsec._native import available
from jaxsec.core._rewrite import tuned

jax.config.update("jax_numpy_rank_promotion", "raise")
R = np.random.default_rng(0)


def array(*shape):
    return jnp.asarray(R.normal(size=shape) * 0.3, jnp.float32)


def residual(p, x):
    """NCHW, as exporters write it: strided conv, overlapping max-pool, residual sum, flatten in NCHW order."""
    dn = ("NCHW", "OIHW", "NCHW")

    def conv(x, w, stride):
        return lax.conv_general_dilated(x, w, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=dn)

    x = jax.nn.relu(conv(x, p["w1"], 2) + p["b"].reshape(1, -1, 1, 1))
    y = jnp.maximum(conv(x, p["w2"], 1) * p["s"].reshape(1, -1, 1, 1) - p["b"].reshape(1, -1, 1, 1), 0)
    x = jax.nn.relu(x + conv(y, p["w2"], 1))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID")
    return jnp.tanh(x.reshape(x.shape[0], -1) @ p["d"].T) @ p["e"]


class Wide(nn.Module):
    """Linen, NHWC: BatchNorm, both pools, a grouped convolution (left to XLA), GELU, global mean."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x))), (2, 2), strides=(2, 2))
        x = nn.avg_pool(nn.gelu(nn.Conv(16, (3, 3), strides=2)(x)), (2, 2), strides=(2, 2))
        return nn.Dense(5)(nn.relu(nn.Conv(16, (3, 3), feature_group_count=4)(x)).mean((1, 2)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Dense(8)(x))
        return nn.Dense(3)((x + nn.MultiHeadDotProductAttention(num_heads=2)(x)).mean(1))


def shared(p, x):
    """A convolution used twice, a constant ReLU bound, a transposed output."""
    y = lax.conv_general_dilated(x, p["w"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.transpose(jax.nn.relu(y) + 2 * y, (0, 3, 1, 2)).sum((2, 3)) @ p["e"]


def sequence(p, x):
    """One spatial axis, channels first, behind a remat; dense layers on rows."""

    def features(x):
        y = lax.conv_general_dilated(x, p["w"], (2,), ((1, 2),), dimension_numbers=("NCH", "OIH", "NCH"))
        return jax.nn.relu(y + p["b"][None, :, None])

    x = jax.checkpoint(features)(x)
    return jax.nn.silu(x.reshape(x.shape[0], -1) @ p["d"]) @ p["e"].T


def cases():
    p = {"w1": array(8, 3, 4, 4), "b": array(8), "w2": array(8, 8, 3, 3), "s": array(8), "d": array(20, 72), "e": array(20, 5)}
    yield "residual", jaxsec.bind(residual, p), array(6, 3, 16, 16)
    wide = Wide()
    v = jax.tree.map(lambda a: a + 0.1 * jnp.abs(array(*a.shape)), wide.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    yield "wide", jaxsec.bind(wide, v), array(6, 16, 16, 3)
    attention = Attention()
    yield "attention", jaxsec.bind(attention, attention.init(jax.random.key(0), jnp.zeros((1, 4, 6)))), array(3, 4, 6)
    yield "shared", jaxsec.bind(shared, {"w": array(3, 3, 2, 5), "e": array(5, 4)}), array(2, 7, 9, 2)
    p = {"w": array(6, 3, 5), "b": array(6), "d": array(6 * 8, 7), "e": array(4, 7)}
    yield "sequence", jaxsec.bind(sequence, p), array(3, 3, 16)


def loss(model, x):
    return jnp.sum(jnp.sin(model(x)))


def main():
    assert len(jax.devices()) == 1, "this script checks what one device does"
    for name, model, x in cases():
        fast = tuned(model)
        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        a, b = run(model, x), run(fast, x)
        gap = max(
            float(jnp.max(jnp.abs(u - w)) / (1e-3 + jnp.max(jnp.abs(u))))
            for u, w in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )
        forward = jax.jit(lambda model, x: model(x))
        gradient = jax.jit(jax.grad(lambda x, model: loss(model, x)))
        compiled = gradient.lower(x, fast).compile()
        text = compiled.as_text()
        counts = {k: text.count(k) for k in (" convolution(", "select-and-scatter", "jaxsec_conv2d", " conditional(")}
        y, many = forward(fast, x), forward(fast, jnp.concatenate([x, x, x]))[: len(x)]
        # two sets of weights at once, two batches at once
        doubled = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), (fast, x))
        mapped = [
            jax.jit(jax.vmap(lambda model, x: model(x), in_axes=(0, None)))(doubled[0], x)[0] - y,
            jax.jit(jax.vmap(lambda model, x: model(x), in_axes=(None, 0)))(fast, doubled[1])[0] - y,
        ]
        jax.export.export(forward, platforms=["tpu", "cuda"])(fast, x)
        found = {"gap": gap, "counts": counts, "rows": float(jnp.max(jnp.abs(many - y))), "exact": bool(jnp.all(many == y))}
        print(json.dumps({"name": name, **found, "vmap": max(float(jnp.max(jnp.abs(m))) for m in mapped)}))
    print(json.dumps({"available": available()}))


if __name__ == "__main__":
    sys.exit(main())
