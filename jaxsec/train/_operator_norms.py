"""Norms of products with weights, as operators between Euclidean spaces: rigorous, rounded up, padding and stride included."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Of the norms, for their own float64 rounding and for weights that a compiled program rounds otherwise than they were read here.
SLACK = 1 + 1e-6
_MATRIX = 1024  # inputs or outputs up to which a convolution is written as a matrix
_SAMPLES = 16  # grid points for each degree of a kernel's spectrum


class UnknownConstant(Exception):
    """An operation whose Lipschitz constant is not known; the message names it."""


def matrix_norm(m: np.ndarray) -> float:
    """The largest singular value, rounded up; of the smaller Gram matrix in float64."""
    gram = m @ m.conj().T if m.shape[0] <= m.shape[1] else m.conj().T @ m
    return math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0)) * SLACK if gram.size else 0.0


def dense_norm(eqn: Any, w: np.ndarray, position: int) -> float:
    """Of `dot_general` without batch axes, whose operand at `position` is known."""
    contracting, (bx, by) = eqn.params["dimension_numbers"]
    if bx or by:
        raise UnknownConstant("dot_general with batch axes")
    w, contracted = _finite(w), contracting[position]
    rest = [a for a in range(w.ndim) if a not in contracted]
    return matrix_norm(w.transpose([*contracted, *rest]).reshape(math.prod(w.shape[a] for a in contracted), -1))


def _finite(w: np.ndarray) -> np.ndarray:
    """In float64; ValueError where a weight is no number, with which every bound would be void."""
    w = w.astype(np.float64)
    if not np.isfinite(w).all():
        raise ValueError(f"weights of shape {w.shape} have {int((~np.isfinite(w)).sum())} NaN or infinite values: no constant bounds them.")
    return w


def magnitude_norm(eqn: Any, w: np.ndarray, position: int) -> float:
    """A bound of the norm of the product with the weights' absolute values: what the sums of the terms' sizes are bounded by.

    Of a convolution that of the taps' sum: without negative weights an endless picture's spectrum is largest at frequency 0.
    """
    if eqn.primitive.name == "dot_general":
        return dense_norm(eqn, np.abs(w), position)
    return max(matrix_norm(phases.sum(axis=tuple(range(phases.ndim - 2)))) for phases in _phases(eqn, np.abs(w)))


def conv_norm(eqn: Any, w: np.ndarray) -> float:
    """Of a convolution with a known kernel and zero padding: exact as a matrix where that is small, else the smaller of two bounds.

    Both are of the convolution over an endless picture, of which any padding, cropping and subsampling picks rows and columns; the stride
    is taken care of by `polyphase`. One is `spectrum_bound`, the other `row_sum_bound`.
    """
    p, x, out, w = eqn.params, eqn.invars[0].aval, eqn.outvars[0].aval, _finite(w)
    if p["batch_group_count"] != 1 or set(p["lhs_dilation"]) != {1}:
        raise UnknownConstant("conv_general_dilated with batch groups or a dilated input")
    inputs, outputs = math.prod(x.shape), math.prod(out.shape)
    if min(inputs, outputs) <= _MATRIX and inputs * outputs <= 1 << 24:
        eye = jnp.eye(inputs, dtype=x.dtype).reshape(inputs, *x.shape)
        full = dict(p, precision=lax.Precision.HIGHEST)
        columns = jax.vmap(lambda v: eqn.primitive.bind(v, jnp.asarray(w, x.dtype), **full))(eye)  # products with 1 and 0: exact
        return matrix_norm(np.asarray(columns, np.float64).reshape(inputs, outputs))
    return max(min(spectrum_bound(phases), row_sum_bound(phases)) for phases in _phases(eqn, w))


def _phases(eqn: Any, w: np.ndarray) -> list[np.ndarray]:
    """Each group's kernel as one of stride 1, `polyphase`, without gaps between its taps."""
    p = eqn.params
    o, i, *spatial = p["dimension_numbers"].rhs_spec
    found = []
    for kernel in np.split(w.astype(np.float64).transpose(*spatial, i, o), p["feature_group_count"], axis=-1):
        for axis, d in enumerate(p["rhs_dilation"]):
            kernel = _dilated(kernel, axis, d)
        found.append(np.asarray(polyphase(kernel, tuple(p["window_strides"]))))
    return found


def _dilated(kernel: np.ndarray, axis: int, d: int) -> np.ndarray:
    shape = list(kernel.shape)
    shape[axis] = (shape[axis] - 1) * d + 1
    wide = np.zeros(shape, kernel.dtype)
    wide[(slice(None),) * axis + (slice(None, None, d),)] = kernel
    return wide


def polyphase(kernel: Any, strides: tuple[int, ...]) -> Any:
    """The kernel [*K, C, O] as that of a convolution of stride 1 on pictures whose blocks of `strides` elements are channels:
    [*ceil(K / strides), prod(strides) * C, O]. Blocks begin where the windows do, so the padding does not matter."""
    n = len(strides)
    kernel = (jnp if isinstance(kernel, jax.Array) else np).pad(
        kernel, [(0, -k % s) for k, s in zip(kernel.shape[:n], strides, strict=True)] + [(0, 0)] * 2
    )
    split = [v for k, s in zip(kernel.shape[:n], strides, strict=True) for v in (k // s, s)]
    kernel = kernel.reshape(*split, *kernel.shape[n:])
    kernel = kernel.transpose(*range(0, 2 * n, 2), *range(1, 2 * n, 2), 2 * n, 2 * n + 1)
    return kernel.reshape(*kernel.shape[:n], -1, kernel.shape[-1])


def spectrum_bound(kernel: np.ndarray) -> float:
    """Of a convolution of stride 1 over an endless picture: the largest norm of its spectrum `sum_k W_k exp(i k w)` on a grid, made larger
    by what may be missed between the points.

    For unit u, v the function `|u* W(w) v|^2` is a trigonometric polynomial of degree K - 1 along each axis. Within t of a maximum M such
    a polynomial of degree N is at least `M cos(N t)` (M. Riesz), and the nearest of n points is within pi / n.
    """
    n_axes = kernel.ndim - 2
    sizes = [1 if k == 1 else _SAMPLES * (k - 1) for k in kernel.shape[:n_axes]]
    best = 0.0
    # one slice of the first axis at a time: the whole spectrum may not fit
    for point in range(sizes[0] // 2 + 1):  # the other half is conjugate
        turn = np.exp(2j * np.pi * point * np.arange(kernel.shape[0]) / sizes[0])
        part = np.tensordot(turn, kernel, 1)
        spectrum = np.fft.fftn(part, s=sizes[1:], axes=range(n_axes - 1)) if n_axes > 1 else part
        spectrum = spectrum.reshape(-1, *kernel.shape[n_axes:])
        turned = spectrum.conj().swapaxes(1, 2)
        gram = spectrum @ turned if kernel.shape[-2] <= kernel.shape[-1] else turned @ spectrum
        best = float(np.maximum(best, np.linalg.eigvalsh(gram)[:, -1].max()))  # NaN stays NaN
    between = math.prod(math.cos(math.pi * (k - 1) / n) for k, n in zip(kernel.shape[:n_axes], sizes, strict=True))
    return math.sqrt(best / between) * SLACK


def row_sum_bound(kernel: np.ndarray) -> float:
    """Of the same: `norm^2 <= max_i (|G| v)_i / v_i` for any v > 0, with G the product of the operator and its transpose (Collatz and
    Wielandt), summed over shifts. v is sought by power iteration; at best it is as good as the scaling of an AOL layer, which is exact
    there."""
    small = np.minimum(row_sums(kernel, False), 1e300), np.minimum(row_sums(kernel, True), 1e300)
    best = math.inf
    for g in small:
        v = np.ones(len(g))
        for _ in range(100):
            w = g @ v
            best = float(np.minimum(best, np.max(w / v)))
            v = np.maximum(w / max(w.max(), 1e-300), 1e-9)
    return math.sqrt(best) * SLACK


def row_sums(kernel: Any, outputs: bool) -> Any:
    """[n, n] `sum over shifts of |sum_k W_k W_{k + shift}^T|` between the inputs' channels, or the outputs', of a kernel [*K, C, O]."""
    xp = jnp if isinstance(kernel, jax.Array) else np
    n = kernel.ndim - 2
    flat = kernel.swapaxes(-1, -2) if outputs else kernel  # [*K, kept, summed]
    pads = [(k - 1, k - 1) for k in kernel.shape[:n]]
    wide = xp.pad(flat, [*pads, (0, 0), (0, 0)])
    shifts = list(np.ndindex(*(2 * k - 1 for k in kernel.shape[:n])))
    total: Any = 0.0
    for i, shift in enumerate(shifts[len(shifts) // 2 :]):
        part = wide[tuple(slice(s, s + k) for s, k in zip(shift, kernel.shape[:n], strict=True))]
        a, b = (v.swapaxes(-1, -2).reshape(-1, flat.shape[-2]) for v in (flat, part))
        size = xp.abs(a.T @ b)
        total = total + (size + size.T if i else size)  # the opposite shift's is the transpose
    return total
