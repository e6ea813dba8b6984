"""A small net, small data, and the paper's quantities again in float64."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsec

LINF = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0)


def mlp(params, x):
    x = x.reshape(x.shape[0], -1)
    return jnp.tanh(x @ params["a"]) @ params["b"] + params["c"][None]


def weights(seed=0, inputs=6, hidden=5, classes=3, scale=1.0):
    r = np.random.default_rng(seed)
    shapes = {"a": (inputs, hidden), "b": (hidden, classes), "c": (classes,)}
    return {k: jnp.asarray(scale * r.normal(size=s), jnp.float32) for k, s in shapes.items()}


def blobs(n=96, inputs=6, classes=3, seed=1):
    """Separable rows in [0, 1]."""
    r = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.where(np.arange(inputs)[None] % classes == np.arange(classes)[:, None], 0.7, 0.3)
    x = np.clip(centres[y] + 0.08 * r.normal(size=(n, inputs)), 0, 1)
    return x.astype(np.float32), y.astype(np.int32)


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def ce(z, y):
    return -log_softmax(z)[np.arange(len(y)), y]


def kl(z, w):
    p, q = log_softmax(z), log_softmax(w)
    return (np.exp(p) * (p - q)).sum(1)


def trees_equal(a, b):
    return all(np.array_equal(np.asarray(u), np.asarray(v)) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
