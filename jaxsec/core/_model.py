"""`Model`: parameters as leaves, the network as a static part that compares by value; `bind` makes one."""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._struct import Struct, static, struct


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What is known about a model besides its parameters; every field is optional.

    `input_shape` is one row's shape (no batch axis); `notes` are sentences for the report, such as "final Softmax removed".
    """

    name: str = ""
    source: str = ""
    input_shape: tuple[int, ...] | None = None
    n_classes: int | None = None
    notes: tuple[str, ...] = ()


@struct
class Model(Struct):
    """A classifier `x[B, ...] -> logits[B, K]`: `params` are traced leaves, `apply` and `info` are static.

    Guarantee: two models with equal `apply` (by value) and parameters of equal shapes share every compiled program.
    """

    params: Any
    apply: Callable[..., jax.Array] = static()
    info: ModelInfo = static(default=ModelInfo())
    stochastic: bool = static(default=False)

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Logits `[B, K]`; a stochastic model needs `keys[B]`, one per row, so that a row's noise is its own."""
        if not self.stochastic:
            return self.apply(self.params, x)
        if keys is None:
            raise TypeError(
                "this model draws random numbers: call model(x, keys) with one key per row, e.g. jax.random.split(key, len(x))."
            )
        return self.apply(self.params, x, keys)

    def noted(self, *notes: str, **info: Any) -> "Model":
        """A copy whose `info` has `notes` appended and the named fields replaced."""
        return self.replace(info=dataclasses.replace(self.info, notes=self.info.notes + notes, **info))

    def preprocessed(self, *, mean: Any = 0.0, std: Any = 1.0, transpose: tuple[int, ...] | None = None) -> "Model":
        """The model behind `(x - mean) / std` and then a transposition of the row axes.

        Args:
          mean, std: scalar, or an array that broadcasts against one row of `x` as the attacker sees it (before `transpose`).
          transpose: order of a row's axes as the network wants them, e.g. `(2, 0, 1)` for an HWC caller of a CHW network.
        """
        if np.any(np.asarray(std) <= 0):
            raise ValueError(f"std is {std}; every entry must be above 0. Give the per-channel standard deviation.")
        params = {"inner": self.params, "mean": jnp.asarray(mean, jnp.float32), "std": jnp.asarray(std, jnp.float32)}
        shape = self.info.input_shape
        if shape is not None and transpose is not None:
            outer = [0] * len(shape)
            for position, axis in enumerate(transpose):
                outer[axis] = shape[position]
            shape = tuple(outer)
        info = dataclasses.replace(self.info, input_shape=shape)
        return self.replace(params=params, apply=_Preprocessed(self.apply, transpose), info=info)


@dataclasses.dataclass(frozen=True)
class _Preprocessed:
    inner: Callable[..., jax.Array]
    transpose: tuple[int, ...] | None

    def __call__(self, params: Any, x: jax.Array, *keys: jax.Array) -> jax.Array:
        x = (x - params["mean"].astype(x.dtype)) / params["std"].astype(x.dtype)
        if self.transpose is not None:
            x = jnp.transpose(x, (0, *(a + 1 for a in self.transpose)))
        return self.inner(params["inner"], x, *keys)


@dataclasses.dataclass(frozen=True)
class _Linen:
    """Holds the module, not `module.apply`: bound methods compare `__self__` by identity and would retrace."""

    net: Any
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        return self.net.apply(params, x, **dict(self.kwargs))


@dataclasses.dataclass(frozen=True)
class _NNX:
    graphdef: Any

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        from flax import nnx

        return nnx.merge(self.graphdef, params)(x)


@dataclasses.dataclass(frozen=True)
class _Callable:
    """A callable pytree: its array leaves are the parameters, everything else is compared by value."""

    treedef: Any
    rest: tuple[Any, ...]
    per_row: bool
    types: tuple[type, ...]  # of the nodes and leaves: dataclass nodes of two classes compare equal (see `struct`), so do 1 and True

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        arrays = iter(params)
        leaves = [next(arrays) if leaf is _ARRAY else leaf for leaf in self.rest]
        net = jax.tree.unflatten(self.treedef, leaves)
        return jax.vmap(net)(x) if self.per_row else net(x)


_ARRAY = "<jaxsec: array leaf>"


def _node_types(treedef: Any) -> list[type]:
    data = treedef.node_data()
    return ([data[0]] if data else []) + [t for child in treedef.children() for t in _node_types(child)]


def bind(
    net: Any, variables: Any = None, *, per_row: bool = False, stochastic: bool = False, info: ModelInfo | None = None, **kwargs: Any
) -> Model:
    """Makes a `Model` of a Flax Linen module, a Flax NNX module, a callable pytree (Equinox) or `fn(params, x)`.

    Guarantee: binding an equal net again does not retrace; gradients flow to `params`; nothing is copied.

    Args:
      net: Linen module (needs `variables`), NNX module in inference mode, callable pytree, or a function `fn(params, x)`
        (needs `variables`). A function that closes over arrays is refused.
      variables: the Linen variable collections, or the `params` of `fn(params, x)`.
      per_row: the callable takes one row (Equinox style) and is vmapped over the batch.
      stochastic: the function is `fn(params, x, key)` and draws random numbers (a randomised defence). It is called row by
        row under `vmap`, each row with its own key. Only for functions.
      info: name and shapes for reports.
      **kwargs: static keyword arguments of a Linen module's `__call__`, e.g. `train=False`.

    Returns:
      Model: `x[B, ...] -> logits[B, K]`.

    Raises:
      TypeError: no `variables` where they are needed, a closure over arrays, or an object that is none of the above.

    Edge cases: a Linen net in training mode (mutable BatchNorm) is not detected here; `check_rows_independent` finds it.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> def linear(params, x):
      ...     return x @ params["w"]
      >>> jaxsec.bind(linear, {"w": jnp.eye(3)})(jnp.ones((2, 3))).shape
      (2, 3)
    """
    if isinstance(net, Model):
        return net
    return _hashable(_bind(net, variables, per_row, stochastic, info, kwargs), net)


def _hashable(model: Model, net: Any) -> Model:
    """The model, if its static part can be looked up by value, which every compiled program needs."""
    try:
        hash(model.apply)
    except TypeError as error:
        raise TypeError(
            f"{type(net).__name__} has a field that cannot be hashed ({error}); use tuples in place of lists and dicts, "
            "e.g. nn.Sequential((layer, layer))."
        ) from error
    return model


def _bind(net: Any, variables: Any, per_row: bool, stochastic: bool, info: ModelInfo | None, kwargs: dict[str, Any]) -> Model:
    if stochastic and not isinstance(net, types.FunctionType | functools.partial):
        raise TypeError(f"stochastic=True needs a function fn(params, x, key), got {type(net).__name__}; wrap the net in one.")
    kind = {cls.__module__.partition(".")[0] for cls in type(net).__mro__}
    if "flax" in kind:
        return _bind_flax(net, variables, info, kwargs)
    if kwargs:
        raise TypeError(f"bind got {sorted(kwargs)} for {type(net).__name__}; keyword arguments are for Flax Linen only.")
    if isinstance(net, types.FunctionType | types.BuiltinFunctionType | functools.partial) or (variables is not None and callable(net)):
        return _bind_function(net, variables, info, per_row, stochastic)
    if callable(net) and not isinstance(net, type):
        leaves, treedef = jax.tree.flatten(net)
        if len(leaves) == 1 and leaves[0] is net:
            raise TypeError(
                f"bind got a {type(net).__name__}, which is callable but no pytree, so its weights cannot be seen. "
                "Pass fn(params, x) with variables=params, or register the class as a pytree."
            )
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        rest = tuple(_ARRAY if a else leaf for a, leaf in zip(is_array, leaves, strict=True))
        params = [leaf for a, leaf in zip(is_array, leaves, strict=True) if a]
        source = ".".join(sorted(kind - {"builtins", "abc", "typing"})) or "pytree"
        types_ = (*_node_types(treedef), *map(type, rest))
        return Model(params=params, apply=_Callable(treedef, rest, per_row, types_), info=info or ModelInfo(type(net).__name__, source))
    raise TypeError(f"bind got {type(net).__name__}; allowed: Flax Linen or NNX module, callable pytree, or fn(params, x).")


def _bind_flax(net: Any, variables: Any, info: ModelInfo | None, kwargs: dict[str, Any]) -> Model:
    from flax import linen, nnx

    if isinstance(net, linen.Module):
        if variables is None:
            raise TypeError("bind got a Linen module without variables; pass the dict that net.init returned or your checkpoint.")
        apply = _Linen(net, tuple(sorted(kwargs.items())))
        return Model(params=variables, apply=apply, info=info or ModelInfo(type(net).__name__, "flax.linen"))
    if isinstance(net, nnx.Module):
        if kwargs or variables is not None:
            raise TypeError("bind got an NNX module with variables or keyword arguments; it takes none: call net.eval() and bind it.")
        graphdef, state = nnx.split(net)
        return Model(params=state, apply=_NNX(graphdef), info=info or ModelInfo(type(net).__name__, "flax.nnx"))
    raise TypeError(f"bind got the Flax object {type(net).__name__}; allowed are linen.Module and nnx.Module.")


def _bind_function(fn: Callable[..., Any], variables: Any, info: ModelInfo | None, per_row: bool, stochastic: bool) -> Model:
    inner = fn.func if isinstance(fn, functools.partial) else fn
    bound = (*fn.args, *fn.keywords.values()) if isinstance(fn, functools.partial) else ()
    cells = [c.cell_contents for c in getattr(inner, "__closure__", None) or ()]
    if any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves([*bound, *cells])):
        raise TypeError(
            f"{getattr(inner, '__qualname__', inner)} closes over arrays: the weights would be baked into every compiled program, "
            "lose their sharding and force a recompile. Write fn(params, x) and pass variables=params."
        )
    if variables is None:
        raise TypeError(
            f"bind got the function {getattr(inner, '__qualname__', inner)} without variables; pass fn(params, x) and its params."
        )
    apply = _Drawing(fn, per_row) if stochastic else _PerRow(fn) if per_row else fn
    info = info or ModelInfo(getattr(inner, "__name__", "function"), "function")
    return Model(params=variables, apply=apply, info=info, stochastic=stochastic)


@dataclasses.dataclass(frozen=True)
class _Drawing:
    """A stochastic function row by row, so that a row's draw depends on its own key only."""

    fn: Callable[..., jax.Array]
    per_row: bool

    def __call__(self, params: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
        if self.per_row:
            return jax.vmap(lambda row, key: self.fn(params, row, key))(x, keys)
        return jax.vmap(lambda row, key: self.fn(params, row[None], key)[0])(x, keys)


@dataclasses.dataclass(frozen=True)
class _PerRow:
    fn: Callable[..., jax.Array]

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: self.fn(params, row))(x)
