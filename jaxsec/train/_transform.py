"""Input transformations as defences: `defended` puts one before a model, `adaptive` gives the twin whose gradients see through it."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..attack._square import NoImage, image_axes
from ..core import Model, Struct
from ..core._keys import fold
from ._net import Net

BACKWARD = ("true", "surrogate", "identity")
COMBINE = ("probabilities", "logits")
# Folds of a row's key that nothing else takes: the transformation's draw, and the model's behind it.
_TRANSFORM, _MODEL = 1_000_011, 1_000_012


class Transform(Struct, abc.ABC):
    """A map of rows [B, ...] -> [B, ...'] that stands before a model, and a differentiable stand-in for it.

    Guarantee: rows are mapped one by one; a stochastic one draws from the row's own key. Numbers are traced leaves; what decides shapes is
      static, and two transformations of equal static fields share every compiled program.
    Attributes:
      name: as tables call it. source: the paper.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    @property
    def stochastic(self) -> bool:
        """Whether `apply` draws, and so needs keys."""
        return False

    def check(self) -> None:
        """ValueError for settings out of range, as far as their values are known (a traced one is not looked at)."""
        return None

    @abc.abstractmethod
    def apply(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """What the model is shown of rows [B, ...]; keys: [B], where stochastic. ValueError for rows of a shape that it cannot take."""

    def surrogate(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """A map near `apply` (on the same draws) that has useful derivatives; only these are used, never its values. Here the identity."""
        return x


@overload
def defended(model: Model, transform: Transform, *, bpda: bool | str = False, draws: int = 1, combine: str = "probabilities") -> Model: ...
@overload
def defended(model: Net, transform: Transform, *, bpda: bool | str = False, draws: int = 1, combine: str = "probabilities") -> Net: ...
def defended(
    model: Model | Net, transform: Transform, *, bpda: bool | str = False, draws: int = 1, combine: str = "probabilities"
) -> Model | Net:
    """The model behind an input transformation: its answer at x is the model's at `transform(x)`.

    Guarantee: values do not depend on `bpda`, only derivatives do: asked for logits alone, bit for bit; in a program that has derivatives
      as well, XLA may fuse and so round the same operations differently. Weights and the transformation's numbers are traced. The
      result is a stochastic `Model` where the transformation or the model is one: each row draws from its own key.
    Args:
      model: a `Model`, or a `Net` to train behind the transformation. Of a net the numbers of the transformation are state, which no
        optimiser moves; of a `Model` they stand among the parameters, without a gradient (but weight decay would move them).
      bpda: False: the derivatives of the program that is deployed, zero through a quantiser. True: those of `transform.surrogate`.
        "identity": straight through, whatever the surrogate. (`adaptive` makes the latter two of the first.)
      draws: draws of a stochastic transformation that are averaged in one answer (a crop ensemble); training takes one (static).
      combine: "probabilities": the log of the mean softmax; "logits": the mean logits (static).
    Raises: ValueError: settings out of range; `draws` above 1 where nothing is drawn. While tracing: rows that cannot be transformed.
    Edge cases: a `Net` that computes in half precision rounds its rows before they are transformed.
    Cost: the transformation's, and `draws` times the model's forward pass and memory.
    Source: Athalye et al. 2018, section 4.1 (backward pass differentiable approximation); draws: Guo et al. 2018, section 3.3.

    Example:
      >>> import jax, jax.numpy as jnp, jaxsec
      >>> from jaxsec.train import BitDepth, adaptive, defended
      >>> def linear(w, x):
      ...     return x @ w
      >>> model = defended(jaxsec.bind(linear, jnp.eye(2)), BitDepth(bits=1))
      >>> model(jnp.array([[0.7, 0.2]])).tolist()
      [[1.0, 0.0]]
      >>> first = lambda model: jax.grad(lambda x: model(x)[0, 0])(jnp.array([[0.7, 0.2]])).tolist()
      >>> first(model), first(adaptive(model))
      ([[0.0, 0.0]], [[1.0, 0.0]])
    """
    backward = _backward_of(bpda)
    if combine not in COMBINE:
        raise ValueError(f"combine is {combine!r}; allowed: {', '.join(COMBINE)}.")
    inner_draws = model.draws if isinstance(model, Net) else model.stochastic
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws is {draws!r}; it must be an int of at least 1.")
    if draws > 1 and not (transform.stochastic or inner_draws):
        raise ValueError(f"draws is {draws}, and neither {transform.name} nor the model draws anything; leave it out.")
    transform.check()
    transform = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), transform)
    passage = Passage(backward=backward, draws=draws, combine=combine)
    if isinstance(model, Net):
        program = _DefendedNet(model.program, passage, transform.stochastic or inner_draws, inner_draws)
        return model.replace(program=program, state={"inner": model.state, "transform": transform})
    apply = Defended(model.apply, passage, transform.stochastic or model.stochastic, model.stochastic)
    note = f"behind the input transformation {transform.name}"
    outer = Model(params={"inner": model.params, "transform": transform}, apply=apply, info=model.info, stochastic=apply.stochastic)
    return outer.noted(note, input_shape=None)


def adaptive(model: Model, backward: str = "surrogate") -> Model:
    """The twin that an adaptive adversary differentiates: the same values as `defended` says, derivatives that see through transformations.

    Every transformation in front of the model is met, through other wrappers too, and of models among the parameters; a model without any
    is returned equal to itself.
    Args: backward: "surrogate" or "identity" (straight through), or "true" for the deployed model back.
    Edge cases: "identity" raises a ValueError while tracing where a transformation changes the rows' shape.
    """
    if backward not in BACKWARD:
        raise ValueError(f"backward is {backward!r}; allowed: {', '.join(BACKWARD)}.")

    def inside(leaf: Any) -> Any:
        return adaptive(leaf, backward) if isinstance(leaf, Model) else leaf

    params = jax.tree.map(inside, model.params, is_leaf=lambda v: isinstance(v, Model))
    return model.replace(params=params, apply=_twin(model.apply, backward))


def _twin(apply: Any, backward: str) -> Any:
    # wrappers of this library hold what they wrap in a field of this name
    if not dataclasses.is_dataclass(apply) or isinstance(apply, type) or "inner" not in {f.name for f in dataclasses.fields(apply)}:
        return apply
    changes: dict[str, Any] = {"inner": _twin(apply.inner, backward)}  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(apply, Defended):
        changes["passage"] = dataclasses.replace(apply.passage, backward=backward)
    return dataclasses.replace(apply, **changes)


def _backward_of(bpda: bool | str) -> str:
    if isinstance(bpda, bool):
        return "surrogate" if bpda else "true"
    if bpda not in BACKWARD:
        raise ValueError(f"bpda is {bpda!r}; allowed: False, True, {', '.join(map(repr, BACKWARD))}.")
    return bpda


@dataclasses.dataclass(frozen=True)
class Passage:
    """How rows pass a transformation into a model: which derivative, how many draws, how these become one answer."""

    backward: str
    draws: int
    combine: str

    def __call__(self, transform: Transform, ask: Callable[..., jax.Array], x: jax.Array, keys: jax.Array | None) -> jax.Array:
        rows = x.shape[0]
        if self.draws > 1:
            assert keys is not None
            x = jnp.repeat(x, self.draws, axis=0)
            keys = jax.vmap(lambda key: jax.vmap(lambda d: jax.random.fold_in(key, d))(jnp.arange(self.draws)))(keys).reshape(-1)
        logits = ask(self.shown(transform, x, keys), keys)
        if self.draws == 1:
            return logits
        logits = logits.reshape(rows, self.draws, -1)
        if self.combine == "logits":
            return jnp.mean(logits, axis=1)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - float(np.log(self.draws))

    def shown(self, transform: Transform, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        """What the model is shown."""
        transform = jax.lax.stop_gradient(transform)
        own = fold(needed(keys, transform.name), _TRANSFORM) if transform.stochastic else None
        return transform.apply(x, own) if self.backward == "true" else _approximated(transform, x, own, self.backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _approximated(transform: Transform, x: jax.Array, keys: jax.Array | None, backward: str) -> jax.Array:
    return transform.apply(x, keys)


def _forward(transform: Transform, x: jax.Array, keys: jax.Array | None, backward: str) -> tuple[jax.Array, Any]:
    return transform.apply(x, keys), (transform, x, keys)


def _backward(backward: str, residuals: Any, cotangent: jax.Array) -> tuple[None, jax.Array, None]:
    transform, x, keys = residuals
    stand_in = (lambda v: v) if backward == "identity" else lambda v: transform.surrogate(v, keys)
    out, pull = jax.vjp(stand_in, x)
    if out.shape != cotangent.shape:
        said = f"{transform.name} turns rows {x.shape[1:]} into {cotangent.shape[1:]}, its stand-in into {out.shape[1:]}"
        raise ValueError(f"{said}: a gradient cannot pass straight through; use backward='surrogate'.")
    return None, pull(cotangent.astype(out.dtype))[0], None


_approximated.defvjp(_forward, _backward)


def _behind(keys: jax.Array | None, draws: bool) -> tuple[jax.Array, ...]:
    """The keys of a model that draws by itself behind the transformation."""
    return (fold(keys, _MODEL),) if draws and keys is not None else ()


@dataclasses.dataclass(frozen=True)
class Defended:
    """A model's program behind a transformation, which is among the parameters; compares by value."""

    inner: Callable[..., jax.Array]
    passage: Passage
    stochastic: bool
    inner_draws: bool

    def __call__(self, params: Any, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        def ask(shown: jax.Array, own: jax.Array | None) -> jax.Array:
            return self.inner(params["inner"], shown, *_behind(own, self.inner_draws))

        return self.passage(params["transform"], ask, x, keys if self.stochastic else None)


@dataclasses.dataclass(frozen=True)
class _DefendedNet:
    """Both modes of a net behind a transformation, which is among the state: nothing trains it."""

    inner: Any
    passage: Passage
    stochastic: bool
    inner_draws: bool

    def evaluate(self, params: Any, state: Any, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        def ask(shown: jax.Array, own: jax.Array | None) -> jax.Array:
            return self.inner.evaluate(params, state["inner"], shown, *_behind(own, self.inner_draws))

        return self.passage(state["transform"], ask, x, keys if self.stochastic else None)

    def train(self, params: Any, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        shown = self.passage.shown(state["transform"], x, keys)
        logits, new = self.inner.train(params, state["inner"], shown, fold(keys, _MODEL))
        return logits, {**state, "inner": new}

    def model(self, params: Any, state: Any) -> Model:
        inner = self.inner.model(params, state["inner"])
        p = self.passage
        return defended(inner, state["transform"], bpda=p.backward, draws=p.draws, combine=p.combine)


def planes(x: jax.Array, layout: str, name: str) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """(images [B, C, H, W], at least float32; the way back to rows like `x`, in its dtype).

    Args: layout: "chw", "hwc", "hw", or "auto": two axes are "hw", of three the channels' is the one of 1, 3 or 4.
    Raises: ValueError: rows that are no images, or whose channels could be at either end.
    """
    try:
        height, width, channels = image_axes(x.shape[1:], layout)
    except NoImage as error:
        raise ValueError(
            f"{name} takes images, and rows of shape {x.shape[1:]} with layout={layout!r} are none, or could be read in two ways; pass "
            "layout='chw', 'hwc' or 'hw', and images that are not flattened."
        ) from error
    v = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if channels is None:
        return v[:, None], lambda out: out[:, 0].astype(x.dtype)
    order = (0, channels + 1, height + 1, width + 1)
    back = tuple(int(a) for a in np.argsort(order))
    return jnp.transpose(v, order), lambda out: jnp.transpose(out, back).astype(x.dtype)


def needed(keys: jax.Array | None, name: str) -> jax.Array:
    """The keys; TypeError where there are none."""
    if keys is None:
        raise TypeError(f"the transformation {name} draws random numbers: give one key per row, as in model(x, keys).")
    return keys


def known(value: Any) -> np.ndarray | None:
    """The value on the host, or None while it is traced."""
    return None if isinstance(value, Tracer) else np.asarray(value, np.float64)


def check_number(name: str, field: str, value: Any, ok: Callable[[np.ndarray], Any], allowed: str) -> None:
    """ValueError where a known value is out of range."""
    v = known(value)
    if v is not None and not np.all(ok(v)):
        raise ValueError(f"{name} got {field}={value}; {field} must be {allowed}.")


def check_count(name: str, field: str, value: Any, least: int) -> None:
    """ValueError where a static field is no int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} got {field}={value!r}; it must be an int of at least {least}.")
