"""`Net`: a network while it is trained: parameters apart from statistics, a training mode apart from an evaluation mode."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..core import Model, ModelInfo, Struct, bind, static, struct
from ..core._model import _NNX, _Linen
from ..core._rewrite import tuned_call, untuned
from ..io._onnx_program import Program

# The argument by which a Linen module is told that it trains, and its value while it does.
_MODES = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}


@struct
class Net(Struct):
    """A classifier with trainable `params` and a `state` of statistics (BatchNorm's; empty for most nets).

    Guarantee: `net(x)` never changes the state and treats rows alike in any company; `net.training(x, keys)` is the only place where
      statistics of the batch are used, where dropout draws, and where a new state comes from.
    Attributes:
      params: what the optimiser moves. state: what training mode updates besides. program: both modes, static, compared by value.
      dtype: the type that the network computes in, None for that of its parameters; parameters and logits keep theirs.
    """

    params: Any
    state: Any = ()
    program: Any = static()
    dtype: Any = static(default=None)

    def __call__(self, x: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """Logits [B, K], float32, in evaluation mode. keys: [B], only for a model that draws random numbers."""
        params, x = self._cast(x)
        return _logits(tuned_call(self.program.evaluate, params, self.state, x, *(() if keys is None else (keys,))))

    def evaluated(self, x: jax.Array, keys: jax.Array) -> jax.Array:
        """Logits [B, K] in evaluation mode; keys [B]: a model that draws random numbers draws each row's from its own key."""
        return self(x, keys) if self.draws else self(x)

    def training(self, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, "Net"]:
        """(logits [B, K] in training mode, the net with its new state). keys: [B] row keys; dropout draws from the first one."""
        params, x = self._cast(x)
        logits, state = tuned_call(self.program.train, params, self.state, x, keys)
        return _logits(logits), self.replace(state=jax.tree.map(_typed_as, state, self.state))

    def _cast(self, x: jax.Array) -> tuple[Any, jax.Array]:
        if self.dtype is None:
            return self.params, x
        to = functools.partial(_floating_as, dtype=self.dtype)
        return jax.tree.map(to, self.params), to(x)

    def model(self) -> Model:
        """The trained classifier as every other room takes it, in evaluation mode."""
        params, state = jax.tree.map(jnp.asarray, (self.params, self.state))
        return self.program.model(params, state)

    @property
    def draws(self) -> bool:
        """The model draws random numbers at every call, in evaluation mode too."""
        return getattr(self.program, "stochastic", False)


def _floating_as(v: jax.Array, dtype: Any) -> jax.Array:
    return v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v


def _typed_as(new: jax.Array, old: jax.Array) -> jax.Array:
    return new.astype(old.dtype) if jnp.issubdtype(old.dtype, jnp.floating) else new


def _logits(z: jax.Array) -> jax.Array:
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


@dataclasses.dataclass(frozen=True)
class _Bound:
    """Any `Model`: one mode, no statistics; arrays that are not floating are state, and stay."""

    apply: Any
    info: ModelInfo
    stochastic: bool

    def evaluate(self, params: Any, state: Any, x: jax.Array, *keys: jax.Array) -> jax.Array:
        return self.apply(_whole(params, state), x, *keys)

    def train(self, params: Any, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        return self.evaluate(params, state, x, *((keys,) if self.stochastic else ())), state

    def model(self, params: Any, state: Any) -> Model:
        return Model(params=_whole(params, state), apply=self.apply, info=self.info, stochastic=self.stochastic)


def _whole(params: Any, state: Any) -> Any:
    """One tree of both; where one has an array the other has None."""
    if not jax.tree.leaves(state):
        return params
    return jax.tree.map(lambda p, s: s if p is None else p, params, state, is_leaf=lambda v: v is None)


def _bound(model: Model, dtype: Any) -> Net:
    def floating(v: Any) -> bool:
        return jnp.issubdtype(jnp.result_type(v), jnp.floating)

    params, state = model.params, ()
    if not all(map(floating, jax.tree.leaves(params))):
        params = jax.tree.map(lambda v: v if floating(v) else None, model.params)
        state = jax.tree.map(lambda v: None if floating(v) else v, model.params)
    return Net(params=params, state=state, program=_Bound(model.apply, model.info, model.stochastic), dtype=dtype)


@dataclasses.dataclass(frozen=True)
class _OnnxModes:
    """An ONNX model: what BatchNorm measured when it was exported is no weight, and stays."""

    apply: Any
    info: ModelInfo

    def evaluate(self, params: Any, state: Any, x: jax.Array) -> jax.Array:
        return self.apply({**params, **state}, x)

    def train(self, params: Any, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        return self.evaluate(params, state, x), state

    def model(self, params: Any, state: Any) -> Model:
        return Model(params={**params, **state}, apply=self.apply, info=self.info)


def _onnx(model: Model, dtype: Any) -> Net:
    names = {number: name for name, number in model.apply.params}
    fixed = {names.get(n) for step in model.apply.steps if step.op == "BatchNormalization" for n in step.inputs[3:5] if isinstance(n, int)}
    state = {name: value for name, value in model.params.items() if name in fixed}
    params = {name: value for name, value in model.params.items() if name not in fixed}
    return Net(params=params, state=state, program=_OnnxModes(model.apply, model.info), dtype=dtype)


@dataclasses.dataclass(frozen=True)
class _LinenModes:
    net: Any
    training: tuple[tuple[str, Any], ...]
    evaluation: tuple[tuple[str, Any], ...]

    def evaluate(self, params: Any, state: Any, x: jax.Array) -> jax.Array:
        return self.net.apply({"params": params, **state}, x, **dict(self.evaluation))

    def train(self, params: Any, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        rngs = {"dropout": keys[0]}
        if not state:
            return self.net.apply({"params": params}, x, rngs=rngs, **dict(self.training)), state
        logits, new = self.net.apply({"params": params, **state}, x, rngs=rngs, mutable=list(state), **dict(self.training))
        return logits, {**state, **new}

    def model(self, params: Any, state: Any) -> Model:
        info = ModelInfo(type(self.net).__name__, "flax.linen")
        return Model(params={"params": params, **state}, apply=_Linen(self.net, self.evaluation), info=info)


@dataclasses.dataclass(frozen=True)
class _NNXModes:
    training: Any
    evaluation: Any
    name: str

    def evaluate(self, params: Any, state: Any, x: jax.Array) -> jax.Array:
        from flax import nnx

        return nnx.merge(self.evaluation, params, state["random"], state["statistics"])(x)

    def train(self, params: Any, state: Any, x: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        from flax import nnx

        # what a module counts of its own draws is no state: every step's key comes from outside
        net = nnx.merge(self.training, params, state["random"], state["statistics"])
        nnx.reseed(net, default=keys[0], dropout=keys[0])
        logits = net(x)
        return logits, {**state, "statistics": nnx.split(net, nnx.Param, nnx.RngState, ...)[3]}

    def model(self, params: Any, state: Any) -> Model:
        from flax import nnx

        net = nnx.merge(self.evaluation, params, state["random"], state["statistics"])
        graphdef, whole = nnx.split(net)
        return Model(params=whole, apply=_NNX(graphdef), info=ModelInfo(self.name, "flax.nnx"))


def net_of(
    net: Any,
    variables: Any = None,
    *,
    x: Any = None,
    key: jax.Array | None = None,
    dtype: Any = None,
    train_kwargs: Mapping[str, Any] | None = None,
    eval_kwargs: Mapping[str, Any] | None = None,
) -> Net:
    """Makes a `Net` of whatever `jaxsec.bind` takes, with the training mode that a Flax module has.

    Args:
      net: a Flax Linen or NNX module, a `Model`, a callable pytree, or `fn(params, x)`. An NNX module is copied, not changed. Of a `Model`
        that was read from ONNX, BatchNorm keeps its statistics.
      variables: Linen collections, or the params of `fn(params, x)`. A Linen module without variables is initialised from `x` and `key`.
      dtype: computes in this type, e.g. jnp.bfloat16 (mixed precision: parameters, statistics and logits stay float32).
      train_kwargs, eval_kwargs: arguments of a Linen module's call in either mode. Left out, an argument called train, training,
        is_training, deterministic or use_running_average is found and set.
    Raises: TypeError: as `bind`, and a Linen module that has neither variables nor a key to make them from.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.train import net_of
      >>> def linear(params, x):
      ...     return x @ params
      >>> net_of(linear, jnp.eye(3))(jnp.ones((2, 3))).shape
      (2, 3)
    """
    if isinstance(net, Net):
        return net if dtype is None else net.replace(dtype=jnp.dtype(dtype))
    dtype = None if dtype is None else jnp.dtype(dtype)
    if "flax" in {cls.__module__.partition(".")[0] for cls in type(net).__mro__}:
        from flax import linen, nnx

        if isinstance(net, linen.Module):
            return _linen(net, variables, x, key, dtype, train_kwargs, eval_kwargs)
        if isinstance(net, nnx.Module):
            bind(net)  # refuses what cannot be looked up by value
            return _nnx(net, dtype)
    model = untuned(bind(net, variables))
    if isinstance(model.apply, Program):
        return _onnx(model, dtype)
    if isinstance(model.apply, _Linen):  # a bound Flax module has its training mode still
        evaluation = eval_kwargs or dict(model.apply.kwargs) or None
        if evaluation and train_kwargs is None:
            train_kwargs = {name: _MODES.get(name, value) for name, value in evaluation.items()}
        return _linen(model.apply.net, model.params, None, None, dtype, train_kwargs, evaluation)
    if isinstance(model.apply, _NNX):
        from flax import nnx

        return _nnx(nnx.merge(model.apply.graphdef, model.params), dtype)
    return _bound(model, dtype)


def _nnx(net: Any, dtype: Any) -> Net:
    from flax import nnx

    kinds = (nnx.Param, nnx.RngState, ...)
    graphdef, params, random, statistics = nnx.split(net, *kinds)
    copy = nnx.merge(graphdef, params, random, statistics)
    copy.train()
    training = nnx.split(copy, *kinds)[0]
    copy.eval()
    program = _NNXModes(training, nnx.split(copy, *kinds)[0], type(net).__name__)
    return Net(params=params, state={"random": random, "statistics": statistics}, program=program, dtype=dtype)


def _linen(
    net: Any, variables: Any, x: Any, key: Any, dtype: Any, train_kwargs: Mapping[str, Any] | None, eval_kwargs: Mapping[str, Any] | None
) -> Net:
    names = inspect.signature(type(net).__call__).parameters
    found = {name: value for name, value in _MODES.items() if name in names}
    training = dict(found if train_kwargs is None else train_kwargs)
    evaluation = {name: not value for name, value in found.items()} if eval_kwargs is None else dict(eval_kwargs)
    if variables is None:
        if x is None or key is None:
            raise TypeError("the Linen module has no variables; pass what net.init returned, or rows and a key to initialise it from.")
        variables = jax.jit(functools.partial(net.init, **evaluation))(key, jnp.asarray(x)[:1])
    variables = dict(variables)
    params = variables.pop("params", None)
    if params is None:
        raise TypeError(f"variables has the collections {sorted(variables)} and no 'params'; pass the dict that net.init returned.")
    program = _LinenModes(net, tuple(sorted(training.items())), tuple(sorted(evaluation.items())))
    bind(net, {"params": params, **variables}, info=None, **evaluation)  # refuses what cannot be looked up by value
    return Net(params=params, state=variables, program=program, dtype=dtype)
