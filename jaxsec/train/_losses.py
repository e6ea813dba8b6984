"""Losses per row of training: labels may be classes [B] or distributions over them [B, K]."""

import jax
import jax.numpy as jnp


def distribution(y: jax.Array, classes: int, smoothing: jax.Array | float = 0.0) -> jax.Array:
    """[B, K] float32: the labels as distributions, a share `smoothing` of each spread over all classes."""
    p = y.astype(jnp.float32) if y.ndim == 2 else jax.nn.one_hot(y, classes, dtype=jnp.float32)
    return p + smoothing * (1.0 / classes - p)


def cross_entropy(logits: jax.Array, y: jax.Array, smoothing: jax.Array | float = 0.0) -> jax.Array:
    """[B] `-sum_k y_k log softmax(z)_k` in nats."""
    log_p = jax.nn.log_softmax(logits)
    if y.ndim == 1 and isinstance(smoothing, int | float) and smoothing == 0:
        return -jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
    p = distribution(y, logits.shape[1], smoothing)
    return -jnp.sum(p * jnp.where(p > 0, log_p, 0), axis=1)  # a class that a net excludes by -inf counts only where it is the label's


def divergence(of: jax.Array, from_: jax.Array) -> jax.Array:
    """[B] Kullback-Leibler divergence `KL(softmax(of) || softmax(from_))` in nats."""
    log_p, log_q = jax.nn.log_softmax(of), jax.nn.log_softmax(from_)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """[] share of rows whose largest logit is the label's (a distribution's largest class)."""
    label = jnp.argmax(y, axis=1) if y.ndim == 2 else y
    return jnp.mean((jnp.argmax(logits, axis=1) == label).astype(jnp.float32))
