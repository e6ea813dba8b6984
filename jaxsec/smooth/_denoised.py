"""Denoised smoothing: a denoiser before the classifier, as one model, whose smoothed form certifies more than the classifier's alone."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._model import Model

_Apply = Callable[..., jax.Array]


def denoised(denoiser: Model, classifier: Model, *, residual: bool = False, clip: tuple[float, float] | None = None) -> Model:
    """The classifier behind a denoiser, `classifier(denoiser(x))`.

    Guarantee: the parameters of both are the model's leaves: other weights, or other bounds of the clip, compile nothing again. A
      certificate of the smoothed composition holds whatever the denoiser does.
    Args:
      denoiser: gives an array of its input's shape, the clean input, or with `residual` the noise in it: `x - denoiser(x)`.
      classifier: takes that shape. clip: (lo, hi) of what the classifier is shown; None leaves it.
    Returns: Model, for `certify(..., method=Smoothing(...))` or anything else that takes one.
    Raises: TypeError, ValueError: no models, models that draw random numbers, bounds out of order; a denoiser that changes the shape,
      when the model is traced.
    Cost: both forward passes.
    Source: Salman et al. 2020, "Denoised smoothing: a provable defense for pretrained classifiers".

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> shrink = jaxsec.bind(lambda p, x: p * x, jnp.float32(0.8))
      >>> linear = jaxsec.bind(lambda p, x: x @ p, jnp.eye(2))
      >>> denoised(shrink, linear, clip=(0.0, 1.0))(jnp.array([[0.5, 2.0]])).tolist()
      [[0.4..., 1.0]]
    """
    _check(denoiser, classifier)
    params: dict[str, Any] = {"denoiser": denoiser.params, "classifier": classifier.params}
    if clip is not None:
        params |= _bounds("clip", clip)
    apply = _Denoised(denoiser.apply, classifier.apply, residual, clip is not None)
    return _composed(classifier, params, apply, denoiser.info.name or "a denoiser")


@dataclasses.dataclass(frozen=True)
class _Denoised:
    denoiser: _Apply
    classifier: _Apply
    residual: bool
    clipped: bool

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        clean = _same_shape(self.denoiser(params["denoiser"], x), x)
        if self.residual:
            clean = x - clean
        if self.clipped:
            clean = jnp.clip(clean, params["lo"].astype(x.dtype), params["hi"].astype(x.dtype))
        return self.classifier(params["classifier"], clean)


def diffusion_denoised(
    denoiser: Model, classifier: Model, *, alphas_cumprod: Any, sigma: float, lo: float = 0.0, hi: float = 1.0, clip: bool = True
) -> Model:
    """The classifier behind one step of a diffusion model, at the time whose noise is that of the smoothing.

    With v in [-1, 1] for x in [lo, hi], s the noise of v and `a` the entry of the schedule at the first time t with `(1 - a) / a >= s^2`:
    `x_t = sqrt(a) v`, `v0 = (x_t - sqrt(1 - a) eps(x_t, t)) / sqrt(a) = v - sqrt((1 - a) / a) eps(x_t, t)`, and the classifier sees v0 in
    the units of x.

    Guarantee: as `denoised`. Another sigma or schedule compiles nothing again.
    Args:
      denoiser: takes a pair (x_t [B, ...], t [B] int32) and gives the noise eps of x_t's shape, for data in [-1, 1]: for example
        `bind(lambda params, pair: net.apply(params, *pair), params)`.
      classifier: takes x's shape, in the units of x. alphas_cumprod: [T] in (0, 1), falling: the product of 1 - beta up to each time.
      sigma: of the smoothing, in units of x. lo, hi: what -1 and 1 stand for. clip: v0 to [-1, 1].
    Returns: Model.
    Raises: TypeError, ValueError: as `denoised`; a schedule that is no falling row in (0, 1); a sigma beyond its noisiest time.
    Cost: one forward pass of each.
    Source: Carlini et al. 2023, "(Certified!!) Adversarial robustness for free!", equation 3: `sigma^2 = (1 - a) / a`. Ho et al. 2020,
      equation 15 for v0.

    Example:
      >>> import jax.numpy as jnp, jaxsec
      >>> nothing = jaxsec.bind(lambda p, pair: p * pair[0], jnp.float32(0.0))
      >>> linear = jaxsec.bind(lambda p, x: x @ p, jnp.eye(2))
      >>> model = diffusion_denoised(nothing, linear, alphas_cumprod=[0.99, 0.9, 0.5], sigma=0.25)
      >>> model(jnp.array([[0.25, 0.75]])).round(4).tolist()
      [[0.25, 0.75]]
    """
    _check(denoiser, classifier)
    bounds = _bounds("(lo, hi)", (lo, hi))
    if np.ndim(sigma) != 0:
        raise ValueError(f"sigma has shape {np.shape(sigma)}; one number is needed, of all rows: the time depends on it.")
    t, a = time_of(alphas_cumprod, 2 * float(sigma) / (hi - lo))
    # not `a` itself: in bfloat16 it would round to 1
    params = {"denoiser": denoiser.params, "classifier": classifier.params, **bounds, "t": jnp.int32(t)}
    params |= {"signal": jnp.float32(np.sqrt(a)), "noise": jnp.float32(np.sqrt((1 - a) / a))}
    return _composed(classifier, params, _OneStep(denoiser.apply, classifier.apply, clip), denoiser.info.name or "a diffusion model")


@dataclasses.dataclass(frozen=True)
class _OneStep:
    denoiser: _Apply
    classifier: _Apply
    clip: bool

    def __call__(self, params: Any, x: jax.Array) -> jax.Array:
        lo, hi, signal, noise = (params[name].astype(x.dtype) for name in ("lo", "hi", "signal", "noise"))
        scale = (hi - lo) / 2
        v = (x - lo) / scale - 1
        eps = self.denoiser(params["denoiser"], (signal * v, jnp.broadcast_to(params["t"], x.shape[:1])))
        clean = v - noise * _same_shape(eps, x)
        if self.clip:
            clean = jnp.clip(clean, -1, 1)
        return self.classifier(params["classifier"], lo + (clean + 1) * scale)


def time_of(alphas_cumprod: Any, sigma: float) -> tuple[int, float]:
    """(t, its entry a) of the first time with `(1 - a) / a >= sigma^2`."""
    a = np.asarray(alphas_cumprod, np.float64)
    if a.ndim != 1 or not a.size or not (np.all(a > 0) and np.all(a < 1) and np.all(np.diff(a) < 0)):
        raise ValueError(f"alphas_cumprod has shape {a.shape}; a falling row of values above 0 and below 1 is needed: cumprod(1 - betas).")
    if not (np.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma is {sigma!r} in units of [-1, 1]; it must be positive and finite.")
    noise = np.sqrt((1 - a) / a)
    if sigma > noise[-1]:
        raise ValueError(f"sigma is {sigma:g} in units of [-1, 1]; the schedule goes up to {noise[-1]:g}. Give a longer one.")
    t = int(np.searchsorted(noise, sigma))
    return t, float(a[t])


def _check(denoiser: Model, classifier: Model) -> None:
    for name, model in (("denoiser", denoiser), ("classifier", classifier)):
        if not isinstance(model, Model):
            raise TypeError(f"{name} is {type(model).__name__}; a jaxsec.Model is needed: jaxsec.bind(fn, params).")
        if model.stochastic:
            raise ValueError(f"the {name} draws random numbers; give a deterministic one.")


def _bounds(name: str, bounds: tuple[float, float]) -> dict[str, jax.Array]:
    low, high = (float(v) for v in bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"{name} is ({low:g}, {high:g}); two finite numbers are needed, the first below the second, e.g. (0.0, 1.0).")
    return {"lo": jnp.float32(low), "hi": jnp.float32(high)}


def _composed(classifier: Model, params: dict[str, Any], apply: _Apply, what: str) -> Model:
    return Model(params=params, apply=apply, info=classifier.info).noted(f"behind {what}")


def _same_shape(found: jax.Array, x: jax.Array) -> jax.Array:
    if found.shape != x.shape:
        raise ValueError(f"the denoiser turns {x.shape} into {found.shape}; it must keep the shape.")
    return found
