"""Runs in a process with one CPU device (the suite has eight, where `tuned` stands back); prints one JSON line per check."""

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


def cases():
    p = {"w1": array(8, 3, 4, 4), "b": array(8), "w2": array(8, 8, 3, 3), "s": array(8), "d": array(20, 72), "e": array(20, 5)}
    yield "residual", jaxsec.bind(residual, p), array(6, 3, 16, 16)
    wide = Wide()
    v = jax.tree.map(lambda a: a + 0.1 * jnp.abs(array(*a.shape)), wide.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3))))
    yield "wide", jaxsec.bind(wide, v), array(6, 16, 16, 3)
    attention = Attention()
    yield "attention", jaxsec.bind(attention, attention.init(jax.random.key(0), jnp.zeros((1, 4, 6)))), array(3, 4, 6)
    yield "shared", jaxsec.bind(shared, {"w": array(3, 3, 2, 5), "e": array(5, 4)}), array(2, 7, 9, 2)


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
        text = jax.jit(jax.grad(lambda x, fast=fast: loss(fast, x))).lower(x).compile().as_text()
        counts = {k: text.count(k) for k in (" convolution(", "select-and-scatter", "jaxsec_conv2d", " conditional(")}
        many = jax.jit(fast)(jnp.concatenate([x, x, x]))[: len(x)]
        rows = float(jnp.max(jnp.abs(many - jax.jit(fast)(x))))
        mapped = jax.vmap(fast)(jnp.stack([x, 2 * x]))[1] - jax.jit(fast)(2 * x)
        jax.export.export(jax.jit(fast), platforms=["tpu", "cuda"])(x)
        print(json.dumps({"name": name, "gap": gap, "counts": counts, "rows": rows, "vmap": float(jnp.max(jnp.abs(mapped)))}))
    print(json.dumps({"available": available()}))


if __name__ == "__main__":
    sys.exit(main())
