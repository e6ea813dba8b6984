"""Labels and rows made softer around any recipe: mixtures of rows (mixup), and labels spread over the classes."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..core import static, struct
from ..core._keys import fold
from ._losses import distribution
from ._net import Net
from ._recipe import Metrics
from ._wrapped import Wrapped, check_range

_PARTNER, _SHARE = 11, 12  # folds of a row's key


@struct
class Mixup(Wrapped):
    """Any recipe on mixtures `s x_i + (1 - s) x_j` of two rows, with labels mixed alike; s is drawn from Beta(alpha, alpha).

    Guarantee: a mixture lies between its rows in every element, so in every box that holds both. Partners and shares depend on the keys of
      the batch's rows and on nothing else.
    Args:
      alpha: at least 0; 1 is uniform. share: "row" for one draw per row, "batch" for one per batch (its first row's), as the authors'
        code has it (static).
    Cost: one pass over x; the draw of s.
    Edge cases: alpha 0 leaves rows and labels alone. A threat's eps is around the mixture. A batch of one row is mixed with itself.
    Source: Zhang et al. 2018, section 2; partners are a random permutation of the batch.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import Mixup, Standard
      >>> def linear(params, x):
      ...     return x @ params
      >>> recipe = Mixup(recipe=Standard(), alpha=1.0)
      >>> value, _ = recipe.loss(jaxsec.bind(linear, jnp.eye(2)), jnp.eye(2), jnp.array([0, 1]), jax.random.key(0))
      >>> 0.3 < float(value) < 0.7
      True
    """

    name: ClassVar[str] = "mixup"
    summary: ClassVar[str] = "any recipe on convex mixtures of two rows and their labels"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Zhang et al. 2018, arXiv:1710.09412"

    alpha: Any = 1.0
    share: str = static(default="row")

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "alpha", least=0.0)
        if self.share not in ("row", "batch"):
            raise ValueError(f"{self.name} got share={self.share!r}; allowed: row, batch.")

    def prepare(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> dict[str, Any]:
        rows, labels = self.mixed(net, x, y, keys)
        return {"rows": rows, "labels": labels, "inner": self.recipe.prepare(net, rows, labels, keys)}

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        return self.recipe.objective(net, prepared["inner"], prepared["rows"], prepared["labels"], keys)

    def mixed(self, net: Net, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(rows [B, ...], labels [B, K])."""
        # the order of one random number per row: a permutation that is a function of the rows' keys alone
        partner = jnp.argsort(jax.vmap(jax.random.bits)(fold(keys, _PARTNER)))
        drawn = keys[:1] if self.share == "batch" else keys
        s = jnp.broadcast_to(mixing_share(fold(drawn, _SHARE), self.alpha), keys.shape)
        t = s.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
        other, labels = x[partner], distribution(y, classes_of(net, x, keys))
        rows = jnp.clip(t * x + (1 - t) * other, jnp.minimum(x, other), jnp.maximum(x, other))  # rounding may lead outside
        return rows, s[:, None] * labels + (1 - s[:, None]) * labels[partner]


def mixing_share(keys: jax.Array, alpha: Any) -> jax.Array:
    """[B] draws from Beta(alpha, alpha), 1 where alpha is 0."""
    alpha = jnp.asarray(alpha, jnp.float32)
    safe = jnp.where(alpha > 0, alpha, 1.0)
    # G / (G + H) of two gamma variables, by their logarithms, since those of a small alpha vanish
    logs = jax.vmap(lambda key: jax.random.loggamma(key, safe, (2,)))(keys)
    return jnp.where(alpha > 0, jax.nn.sigmoid(logs[:, 0] - logs[:, 1]), 1.0)


def classes_of(net: Net, x: jax.Array, keys: jax.Array) -> int:
    """How many logits the net has, without running it."""
    return jax.eval_shape(Net.evaluated, net, x, keys).shape[1]


@struct
class LabelSmoothing(Wrapped):
    """Any recipe whose loss meets labels of which a share `smoothing` is spread over all classes; its adversary keeps the labels as given.

    Cost: none. Edge cases: recipes that go by a label's largest class (MART, MACER's radius) do so here.
    Source: Szegedy et al. 2016, section 7: q' = (1 - smoothing) q + smoothing / K.
    """

    name: ClassVar[str] = "label-smoothing"
    summary: ClassVar[str] = "any recipe with labels spread over all classes"
    cost: ClassVar[str] = "+ 0"
    source: ClassVar[str] = "Szegedy et al. 2016, arXiv:1512.00567"

    smoothing: Any = 0.1

    def check(self, net: Net, x: jax.Array) -> None:
        super().check(net, x)
        check_range(self, "smoothing", least=0.0, most=1.0)

    def objective(self, net: Net, prepared: Any, x: jax.Array, y: jax.Array, keys: jax.Array) -> tuple[jax.Array, Metrics, Net]:
        soft = distribution(y, classes_of(net, x, keys), self.smoothing)
        return self.recipe.objective(net, prepared, x, soft, keys)
