"""Layers of Flax Linen whose Lipschitz constant in L2 is at most 1 whatever their weights: AOL dense layers and convolutions, MaxMin."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ._maxmin import maxmin
from ._operator_norms import polyphase, row_sums


@functools.partial(jax.jit, static_argnums=1)
def aol(kernel: jax.Array, strides: tuple[int, ...] = ()) -> jax.Array:
    """The kernel [*K, C, O] rescaled channel by channel, so that no product with it, strided and zero-padded as may be, has a norm above 1.

    Guarantee: in exact arithmetic, for any kernel; close to orthogonal kernels stay as they are. `lipschitz_constant` checks the result.
    Args: strides: as many as the kernel has spatial axes; none for a matrix [C, O].
    Source: Prach and Lampert 2022, theorems 1 and 2: `d_i = (sum_j |P^T P|_ij)^(-1/2)`. Different: the factors go to the outputs where
      those are fewer than the inputs (of a block of the stride), whose product could never be the identity; and with a stride each phase
      of the kernel has factors of its own.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxsec.train._lipschitz_layers import aol
      >>> aol(jnp.array([[3.0, 0.0], [0.0, 5.0]])).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    phases = polyphase(kernel, strides)
    outputs = phases.shape[-1] <= phases.shape[-2]
    sums = jnp.sum(row_sums(phases, outputs), axis=1)
    factors = jnp.where(sums > 0, lax.rsqrt(jnp.where(sums > 0, sums, 1)), 0)
    if outputs:
        return kernel * factors.reshape((1,) * (kernel.ndim - 1) + (-1,))
    n = len(strides)
    factors = factors.reshape(*strides, kernel.shape[n])
    for axis, (k, s) in enumerate(zip(kernel.shape[:n], strides, strict=True)):
        factors = jnp.take(factors, jnp.arange(k) % s, axis=axis)
    return kernel * factors[..., None]


class AOLDense(nn.Module):
    """A dense layer of Lipschitz constant at most 1. Cost: as `nn.Dense` and, once a batch, the product of its matrix with itself.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxsec.train import AOLDense
      >>> y, _ = AOLDense(4).init_with_output(jax.random.key(0), jnp.eye(3))
      >>> bool(jnp.linalg.norm(y[0] - y[1]) <= 2**0.5)
      True
    """

    features: int
    use_bias: bool = True
    kernel_init: Any = nn.initializers.orthogonal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = x @ aol(kernel).astype(x.dtype)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class AOLConv(nn.Module):
    """A convolution [B, *spatial, C] -> [B, *spatial', features] of Lipschitz constant at most 1, zero-padded.

    Args: as `nn.Conv`; strides: a number or one for each spatial axis. padding: "SAME", "VALID" or pairs.
    Cost: as `nn.Conv` and, once a batch, a product of the kernel with itself for half of its `(2 ceil(K / stride) - 1)^2` shifts.
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Any = "SAME"
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = tuple(self.kernel_size)
        strides = (self.strides,) * len(size) if isinstance(self.strides, int) else tuple(self.strides)
        kernel = self.param("kernel", _central, (*size, x.shape[-1], self.features), jnp.float32)
        letters = "HWD"[: len(size)]
        layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        kernel = aol(kernel, strides).astype(x.dtype)
        y = lax.conv_general_dilated(x, kernel, strides, self.padding, dimension_numbers=layout)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _central(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """An orthogonal matrix at the kernel's middle, zeros elsewhere, so that deep nets start near an isometry."""
    middle = nn.initializers.orthogonal()(key, shape[-2:], dtype)
    return jnp.zeros(shape, dtype).at[tuple(k // 2 for k in shape[:-2])].set(middle)


class MaxMin(nn.Module):
    """`maxmin` as a layer: sorts the channels in pairs. Keeps gradients' norms, as ReLU does not."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return maxmin(x)
