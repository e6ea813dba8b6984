"""Attack objectives on logits: every one is per row, to be maximised, and higher means closer to a misclassification."""

import jax
import jax.numpy as jnp

LOSSES = ("ce", "dlr", "margin")
_TINY = 1e-12


def _pick(logits: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, y[:, None], axis=1)[:, 0]


def runner_up(logits: jax.Array, y: jax.Array) -> jax.Array:
    """The largest logit of every class but `y`. [B, K], [B] -> [B]."""
    return jnp.max(jnp.where(jax.nn.one_hot(y, logits.shape[1], dtype=bool), -jnp.inf, logits), axis=1)


def cross_entropy(logits: jax.Array, y: jax.Array) -> jax.Array:
    """`-log softmax(z)_y`. [B, K], [B] -> [B] in nats."""
    return jax.nn.logsumexp(logits, axis=1) - _pick(logits, y)


def margin(logits: jax.Array, y: jax.Array) -> jax.Array:
    """`max_{i != y} z_i - z_y`: positive when misclassified. [B, K], [B] -> [B]."""
    return runner_up(logits, y) - _pick(logits, y)


def _top(logits: jax.Array, n: int) -> list[jax.Array]:
    # n repeated maxima instead of a sort or top_k: both are far slower on CPU and their gradients scatter. Ties: one entry a round.
    tops = []
    rest = logits
    for _ in range(n):
        winner = jnp.argmax(rest, axis=1)
        tops.append(_pick(logits, winner))
        rest = jnp.where(jax.nn.one_hot(winner, logits.shape[1], dtype=bool), -jnp.inf, rest)
    return tops


def dlr(logits: jax.Array, y: jax.Array) -> jax.Array:
    """Difference of logits ratio, `-(z_y - max_{i != y} z_i) / (z_(1) - z_(3))`: invariant to shift and scale.

    Guarantee: in [-1, 1]. Raises `ValueError` below three classes, where the ratio is constant.
    Source: Croce and Hein 2020 (AutoAttack), eq. 6.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"DLR needs at least 3 classes, the model has {logits.shape[1]}; use loss='margin' or 'ce'.")
    first, _, third = _top(logits, 3)
    return margin(logits, y) / (first - third + _TINY)


def dlr_targeted(logits: jax.Array, y: jax.Array, target: jax.Array) -> jax.Array:
    """Targeted DLR, `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)`.

    Edge cases: below 4 classes `z_t - z_y`. Every ratio of three logits is constant, or rises by lowering the second, where the target is
      the third.
    Source: Croce and Hein 2020 (AutoAttack), eq. 7.
    """
    return _over_spread(_pick(logits, target) - _pick(logits, y), logits)


def dlr_towards(logits: jax.Array, target: jax.Array) -> jax.Array:
    """`(z_t - max_{i != t} z_i) / (z_(1) - (z_(3) + z_(4)) / 2)`: targeted DLR without a class to leave; as `dlr_targeted` below 4 classes.

    The denominator is the targeted one: over `z_(1) - z_(3)` the loss of a target ranked third would be -1 whatever the input.
    """
    return _over_spread(-margin(logits, target), logits)


def _over_spread(difference: jax.Array, logits: jax.Array) -> jax.Array:
    if logits.shape[1] < 4:
        return difference
    first, _, third, fourth = _top(logits, 4)
    return difference / (first - (third + fourth) / 2 + _TINY)


def untargeted(name: str, logits: jax.Array, y: jax.Array) -> jax.Array:
    """The loss `name` away from `y`."""
    return {"ce": cross_entropy, "dlr": dlr, "margin": margin}[name](logits, y)


def targeted(name: str, logits: jax.Array, target: jax.Array) -> jax.Array:
    """The loss `name` towards `target`: the negative of moving away from it; DLR has a denominator of its own (`dlr_towards`)."""
    return dlr_towards(logits, target) if name == "dlr" else -untargeted(name, logits, target)
