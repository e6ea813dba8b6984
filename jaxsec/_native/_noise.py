"""The one call behind noise and noised batches: native on CPUs and CUDA devices, Pallas on TPUs, the twin elsewhere; the same bits.

The twin is the specification; csrc/include/jaxsec/noise.h states it in formulas.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning

from ._load import platforms
from ._noise_tpu import fits, noised_tpu
from ._normal import discrete, laplace, normal_pair, uniform
from ._philox import dependent_zero, philox4x32

_TARGET = "jaxsec_noise"
_STREAM = np.uint32(0x534E6F69)  # second word of the counter, which `random_bits` leaves 0 up to 2^34 words
DISTRIBUTIONS = ("gaussian", "laplace", "uniform", "discrete-gaussian")
DISCRETE = DISTRIBUTIONS[3]


@dataclasses.dataclass(frozen=True)
class NoisePlan:
    """What is static in a call: `n` samples of `d` values, a channel for each run of `inner` of them; `native`: where compiled code is."""

    n: int
    d: int
    inner: int
    distribution: str
    dtype: Any
    native: tuple[str, ...]


def noised(
    plan: NoisePlan, x: jax.Array, key: jax.Array, first: jax.Array, sigma: jax.Array, multiply: jax.Array, add: jax.Array,
    table: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """y [B, n, d] = z (sigma multiply) + (x multiply + add), with z(key, first + s, p) for sample s and position p.

    Args:
      x: [B, d] float32, or uint8 that stands for 1/255 of it, or [B, 0] for none. key: [B, 2] uint32. first: [B, 2] uint32, low word
        first, the number of the first sample. sigma: [B] float32. multiply, add: [C] float32; position p has channel (p / inner) % C.
      table: [2, cells] uint32, of the discrete Gaussian, which does not read sigma: y = (z + 255 x) (multiply / 255) + add, in that order.
    """
    if (table is None) != (plan.distribution != DISCRETE):
        raise TypeError(f"table is {table!r} and the distribution {plan.distribution}; the discrete Gaussian needs one, others take none.")
    return _call(plan, x, key, first, sigma, multiply, add, jnp.zeros((2, 0), jnp.uint32) if table is None else table)


def plan_of(n: int, d: int, inner: int, distribution: str, dtype: Any) -> NoisePlan:
    """The plan with the platforms that have native code now: the switch is part of what compiled programs are looked up by."""
    return NoisePlan(n, d, inner, distribution, jnp.dtype(dtype), platforms())


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _call(plan: NoisePlan, *arrays: jax.Array) -> jax.Array:
    return _mapped(plan)(*arrays)


@_call.defjvp
def _tangent(plan: NoisePlan, arrays: tuple[jax.Array, ...], tangents: tuple[Any, ...]) -> tuple[jax.Array, jax.Array]:
    x, key, first, sigma, multiply, _, table = arrays
    channel = jnp.arange(plan.d) // plan.inner % multiply.shape[0]
    y, t = _call(plan, *arrays), jnp.zeros((1, 1, plan.d), jnp.float32)
    dx, _, _, dsigma, dmultiply, dadd, _ = (None if t.dtype == jax.dtypes.float0 else t for t in tangents)
    if dx is not None and x.shape[1]:
        t = t + (dx * multiply[channel][None])[:, None]
    if dadd is not None:
        t = t + dadd[channel][None, None]
    if plan.distribution == DISCRETE:
        if dmultiply is not None:
            one, nothing = jnp.ones(1), jnp.zeros(1)
            plain = dataclasses.replace(plan, dtype=jnp.dtype(jnp.float32))
            t = t + _call(plain, x, key, first, sigma, one, nothing, table) * dmultiply[channel][None, None]
        return y, jnp.broadcast_to(t, y.shape).astype(y.dtype)
    if dsigma is not None or dmultiply is not None:
        ones = jnp.ones_like(sigma)
        z = _call(dataclasses.replace(plan, dtype=jnp.dtype(jnp.float32)), x[:, :0], key, first, ones, jnp.ones(1), jnp.zeros(1), table)
        if dsigma is not None:
            t = t + z * dsigma[:, None, None] * multiply[channel][None, None]
        if dmultiply is not None:
            value = as_float(x)[:, None] if x.shape[1] else jnp.zeros((1, 1, plan.d), jnp.float32)
            t = t + (z * sigma[:, None, None] + value) * dmultiply[channel][None, None]
    return y, jnp.broadcast_to(t, y.shape).astype(y.dtype)


@functools.cache
def _mapped(plan: NoisePlan) -> Any:
    """The call with a `vmap` rule: images that are mapped join the batch; where the channels are mapped, one by one."""

    @jax.custom_batching.custom_vmap
    def call(*arrays: jax.Array) -> jax.Array:
        return _partitioned(plan)(*arrays)

    @call.def_vmap
    def batched(size: int, mapped: list[bool], *arrays: jax.Array) -> tuple[jax.Array, bool]:
        if any(mapped[4:]):
            whole = [jnp.broadcast_to(a[None], (size, *a.shape)) if not m else a for a, m in zip(arrays, mapped, strict=True)]
            return jax.lax.map(lambda parts: call(*parts), tuple(whole)), True
        rows = [jnp.broadcast_to(a[None], (size, *a.shape)) if not m else a for a, m in zip(arrays[:4], mapped[:4], strict=True)]
        y = call(*(a.reshape(a.shape[0] * a.shape[1], *a.shape[2:]) for a in rows), *arrays[4:])
        return y.reshape(size, -1, *y.shape[1:]), True

    return call


@functools.cache
def _partitioned(plan: NoisePlan) -> Any:
    """The call with a partitioning rule: each device makes the samples of its own images. XLA would gather around native code."""

    def local(*arrays: jax.Array) -> jax.Array:
        return _by_platform(plan, *arrays)

    call = custom_partitioning(local)

    def partition(mesh: Any, given: Any, wanted: Any) -> Any:
        return mesh, local, jax.tree.map(lambda a: a.sharding, wanted), tuple(a.sharding for a in given)

    whole = ("d", "k", "w", "c", "e", "r", "t", "n", "p")  # samples and positions are counted from 0 on each device
    call.def_partition(partition=partition, sharding_rule="b d, b k, b w, b, c, e, r t -> b n p", need_replication_factors=whole)
    return call


def _by_platform(plan: NoisePlan, *arrays: jax.Array) -> jax.Array:
    made = {p: functools.partial(_pallas if p == "tpu" else _native, plan) for p in plan.native if p != "tpu" or fits(plan.d, arrays[-1])}
    if not made or arrays[0].shape[0] * plan.n * plan.d == 0:
        return twin(plan, *arrays)
    return jax.lax.platform_dependent(*arrays, **made, default=functools.partial(twin, plan))


def _pallas(
    plan: NoisePlan, x: jax.Array, key: jax.Array, first: jax.Array, sigma: jax.Array, multiply: jax.Array, add: jax.Array, table: jax.Array
) -> jax.Array:
    parts = _on_grid(plan, x, multiply, add) if plan.distribution == DISCRETE else _base_and_scale(plan, x, sigma, multiply, add)
    return noised_tpu(first, key, parts, table, n=plan.n, stream=int(_STREAM), distribution=plan.distribution, dtype=plan.dtype)


def _native(plan: NoisePlan, *arrays: jax.Array) -> jax.Array:
    out = jax.ShapeDtypeStruct((arrays[0].shape[0], plan.n, plan.d), plan.dtype)
    kind = np.int64(DISTRIBUTIONS.index(plan.distribution))
    y = jax.ffi.ffi_call(_TARGET, out)(*arrays, distribution=kind, inner=np.int64(plan.inner))
    # inside `shard_map` a result is taken for a replicated one unless it is said to vary as its arguments do
    varying = frozenset().union(*(jax.typeof(a).manual_axis_type.varying for a in arrays))
    return jax.lax.pcast(y, tuple(sorted(varying)), to="varying") if varying else y


def twin(
    plan: NoisePlan, x: jax.Array, key: jax.Array, first: jax.Array, sigma: jax.Array, multiply: jax.Array, add: jax.Array,
    table: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """`noised` in pure JAX."""
    blocks = -(-plan.d // 4)
    shape = (x.shape[0], plan.n, blocks)
    words = _words(_STREAM, key, first, shape)
    if plan.distribution == DISCRETE:
        assert table is not None  # `noised` has looked
        seconds = _words(_STREAM + np.uint32(1), key, first, shape)
        quarters = tuple(discrete(word, second, table) for word, second in zip(words, seconds, strict=True))
    elif plan.distribution == "gaussian":
        quarters = (*normal_pair(words[0], words[1]), *normal_pair(words[2], words[3]))
    else:
        quarters = tuple(map(laplace if plan.distribution == "laplace" else uniform, words))
    z = jnp.stack(quarters, axis=2).reshape(*shape[:2], 4 * blocks)[..., : plan.d]
    if plan.distribution == DISCRETE:
        value, scale, shift = _on_grid(plan, x, multiply, add)
        return ((z + value[:, None]) * scale[:, None] + shift[:, None]).astype(plan.dtype)
    base, scale = _base_and_scale(plan, x, sigma, multiply, add)
    return (z * scale[:, None] + base[:, None]).astype(plan.dtype)


def _words(stream: np.uint32, key: jax.Array, first: jax.Array, shape: tuple[int, int, int]) -> tuple[jax.Array, ...]:
    """Four words for each block [B, n, blocks]."""
    sample = jnp.arange(shape[1], dtype=jnp.uint32)[None]
    low = first[:, :1] + sample
    high = first[:, 1:] + (low < sample).astype(jnp.uint32)
    nought = jnp.zeros(shape, jnp.uint32) + dependent_zero(key.T, first.T)[:, None, None]  # all that a loop carries varies alike
    block = jnp.arange(shape[2], dtype=jnp.uint32)[None, None]
    counter = (nought + block, nought + stream, nought + low[..., None], nought + high[..., None])
    return philox4x32(counter, (nought + key[:, 0][:, None, None], nought + key[:, 1][:, None, None]))


def _on_grid(plan: NoisePlan, x: jax.Array, multiply: jax.Array, add: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B, d] each: 255 x in whole numbers, and what its sum with the noise is multiplied by and added to."""
    channel = jnp.arange(plan.d) // plan.inner % multiply.shape[0]
    whole = (x.shape[0], plan.d)
    value = jnp.round(x * np.float32(255)) if x.dtype == jnp.float32 else x.astype(jnp.float32)
    scale = jnp.broadcast_to((multiply * np.float32(1 / 255))[channel][None], whole)
    return value if x.shape[1] else jnp.zeros(whole, jnp.float32), scale, jnp.broadcast_to(add[channel][None], whole)


def _base_and_scale(plan: NoisePlan, x: jax.Array, sigma: jax.Array, multiply: jax.Array, add: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[B, d] each: what a sample is without noise, and what its noise is multiplied by."""
    channel = jnp.arange(plan.d) // plan.inner % multiply.shape[0]
    many, more = multiply[channel][None], add[channel][None]
    base = as_float(x) * many + more if x.shape[1] else jnp.broadcast_to(more, (x.shape[0], plan.d))
    return base, sigma[:, None] * many


def as_float(x: Any) -> Any:
    """uint8 as 1/255 of it, as all samples read bytes; of NumPy and JAX arrays alike."""
    return x.astype(np.float32) * np.float32(1 / 255) if x.dtype == np.uint8 else x
