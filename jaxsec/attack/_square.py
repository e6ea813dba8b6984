"""Square: score-based random search over square windows of images; no gradient."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._native import settle
from ..core._draws import row_streams, row_uniforms
from ..core._keys import fold
from ..core._local import Caches, LocalModel, local
from ..core._struct import Struct, static, struct
from ._method import Method, Track, start_track
from ._problem import Problem, expand
from ._verdict import confirmed

LAYOUTS = ("auto", "chw", "hwc", "hw")
_DROPS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def window_fraction(p_init: float, steps: int, rescale: bool) -> np.ndarray:
    """Share of the image that a window covers at each iteration: p_init, halved at fixed iterations (of 10,000 when rescaled).

    Source: Andriushchenko et al. 2020, section 3.
    """
    at = np.arange(steps) + 1
    if rescale:
        at = at * 10_000 // steps
    return p_init / 2.0 ** np.searchsorted(_DROPS, at, side="left")


class NoImage(ValueError):
    """Rows that are no images, or whose axes nothing names."""


def image_axes(row_shape: tuple[int, ...], layout: str) -> tuple[int, int, int | None]:
    """Axes (of a row) of height, width and channels; `NoImage` where the input is none (one pixel high or wide: a vector) or ambiguous."""
    if layout not in LAYOUTS:
        raise ValueError(f"Square got layout={layout!r}; allowed: {', '.join(LAYOUTS)}.")
    axes = _axes(row_shape, layout)
    if axes is not None and min(row_shape[axes[0]], row_shape[axes[1]]) > 1:
        return axes
    raise NoImage(
        f"Square needs images, a row of shape {row_shape} with layout={layout!r} is none that it can read. Pass layout='chw', 'hwc' "
        "or 'hw' if it is one; for other inputs use AutoAttack(), which leaves Square out there, or another method."
    )


def _axes(row_shape: tuple[int, ...], layout: str) -> tuple[int, int, int | None] | None:
    if layout == "auto":
        if len(row_shape) == 2:
            layout = "hw"
        elif len(row_shape) == 3:
            first, last = row_shape[0] in (1, 3, 4), row_shape[2] in (1, 3, 4)
            if first != last:
                layout = "chw" if first else "hwc"
    if layout == "hw" and len(row_shape) == 2:
        return 0, 1, None
    if layout in ("chw", "hwc") and len(row_shape) == 3:
        return (1, 2, 0) if layout == "chw" else (0, 1, 2)
    return None


@struct
class _State(Struct):
    loss: jax.Array
    streams: jax.Array
    corners: tuple[jax.Array, jax.Array] | None
    caches: Caches | None
    track: Track


@struct
class Square(Method):
    """Square attack: proposes a random window, keeps it when the margin falls.

    Guarantee: every proposal is inside the threat set; row i's proposals depend on row i's key only (the published code
    draws one window for the whole batch).

    Args:
      steps: queries per restart (static). restarts: independent runs, unsolved rows only (static).
      p_init: share of the image covered by the first windows (static).
      rescale: stretch the window schedule, made for 10,000 queries, to `steps` (static).
      layout: "chw", "hwc", "hw" or "auto" (by where 1, 3 or 4 channels stand) (static).
      reference: the published code's windows, which never reach the last row or column and, for L2 and L1, give each channel the
        mass of all (static). Its one window for a whole batch is not repeated: no row's distribution depends on it.

    Cost: one forward per step; memory 6 times `x`. For Linf and channels first or last, on one CPU with native code, a step computes
      only what its window reaches, and remembers up to 32 times `x`.
    Edge cases: inputs that are no images raise `ValueError`.
    Source: Andriushchenko et al. 2020, algorithms 1 (loop), 2 (Linf) and 3 (L2); L1 as in Croce and Hein 2021, section 5.

    Example:
      >>> import jaxsec
      >>> jaxsec.Square(steps=1000).needs_gradient
      False
    """

    name: ClassVar[str] = "square"
    needs_gradient: ClassVar[bool] = False
    ascends: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = static(default=5000)
    restarts: int = static(default=1)
    p_init: float = static(default=0.8)
    rescale: bool = static(default=False)
    layout: str = static(default="auto")
    reference: bool = static(default=False)

    @property
    def total_steps(self) -> int:
        return self.steps - 1

    def rounds(self, n_classes: int) -> int:
        return self.restarts

    def fit(self, n_classes: int, row_shape: tuple[int, ...], norm: str) -> tuple[Method, tuple[str, ...]]:
        if self.steps < 2 or self.restarts < 1 or not 0 < self.p_init <= 1:
            raise ValueError(
                f"Square got steps={self.steps}, restarts={self.restarts}, p_init={self.p_init}; "
                "needed: steps >= 2, restarts >= 1, 0 < p_init <= 1."
            )
        image_axes(row_shape, self.layout)
        return self, ()

    def init(self, problem: Problem, round: jax.Array | int) -> _State:
        from ._square_windows import first_tiles

        x0, threat = problem.x0, problem.threat
        h, w, c = image_axes(x0.shape[1:], self.layout)
        if threat.norm == "linf":
            stripes = [1 if axis == h else size for axis, size in enumerate(x0.shape[1:])]
            sign = jax.vmap(lambda k: jax.random.rademacher(k, tuple(stripes), x0.dtype))(problem.keys)
            start = threat.project(x0, x0 + expand(threat.radius(x0).astype(x0.dtype), x0) * sign)
        else:
            start = _back(first_tiles(threat, _images(x0, h, w, c), problem.keys, _threat_images(threat, h, w, c)), h, w, c)
        asked = self._local(problem)
        logits, caches = asked.start(start) if asked else (problem.logits(start, 0), None)
        margin = problem.loss("margin", logits)
        won, more = confirmed(problem, start, logits, 0)
        track = start_track(problem).replace(
            x=start,
            success=won,
            candidate=problem.wrong(logits),
            loss=margin,
            late=margin,
            queries=problem.draws + more,
            first_step=jnp.where(won, 0, -1),
        )
        # for Linf the set is a box: kept, because finding its rounded corners costs more than a proposal
        one = jnp.ones_like(x0)
        corners = (threat.maximise(x0, -one), threat.maximise(x0, one)) if threat.norm == "linf" else None
        streams = row_streams(fold(problem.keys, 1))
        return _State(loss=margin, streams=streams, corners=corners, caches=caches, track=track)

    def step(self, problem: Problem, state: _State, i: jax.Array) -> _State:
        from ._square_windows import linf_proposal, linf_window, moved_mass

        x0, x, threat = problem.x0, state.track.x, problem.threat
        h, w, c = image_axes(x0.shape[1:], self.layout)
        height, width = x0.shape[1 + h], x0.shape[1 + w]
        share = np.sqrt(window_fraction(self.p_init, self.total_steps, self.rescale) * height * width)
        channels = 1 if c is None else x0.shape[1 + c]
        u = row_uniforms(state.streams, i, (2 if state.corners is not None else 5) + channels)
        old = state.track
        live, found = ~old.success, []
        if state.corners is not None:
            side = np.clip(np.round(share), 1, min(height, width)).astype(np.int32)
            window = linf_window(u, jnp.asarray(side)[i], height, width, self.reference)
            proposal = linf_proposal(x, state.corners, u[:, 2:], window, (h, w, c))
        else:
            side = np.clip(np.round(share), 3, None).astype(np.int32)
            side = np.minimum(side + (side % 2 == 0), (min(height, width) - 1) // 2 * 2 + 1).astype(np.int32)
            images = _threat_images(threat, h, w, c)
            moved = moved_mass(images, _images(x0, h, w, c), _images(x, h, w, c), u, jnp.asarray(side)[i], int(side.max()), self.reference)
            window, proposal = None, _back(moved, h, w, c)
        asked = self._local(problem)
        if asked and window is not None:
            logits, found = asked.ask(state.caches, proposal, jnp.where(live[:, None], window, 0))
        else:
            logits = problem.logits(proposal, i + 1)
        margin = problem.loss("margin", logits)
        won, more = confirmed(problem, proposal, logits, i + 1)
        accept = live & ((margin > state.loss) | won)
        loss = jnp.where(accept, margin, state.loss)
        caches = None if state.caches is None else settle(found, accept)
        track = old.replace(
            x=jnp.where(expand(accept, proposal), proposal, x),
            success=old.success | (live & won),
            candidate=jnp.where(accept, problem.wrong(logits), old.candidate),
            loss=jnp.where(live, loss, old.loss),
            late=jnp.where(live, loss, old.late),
            queries=old.queries + (problem.draws + more) * live,
            first_step=jnp.where(live & won, i + 1, old.first_step),
        )
        return _State(loss=loss, streams=state.streams, corners=state.corners, caches=caches, track=track)

    def _local(self, problem: Problem) -> LocalModel | None:
        """The model as one that computes only what a window reaches, where proposals are windows (Linf)."""
        if problem.threat.norm != "linf" or problem.draws != 1:
            return None
        return local(problem.model, image_axes(problem.x0.shape[1:], self.layout), problem.x0.dtype)


def _images(x: jax.Array, h: int, w: int, c: int | None) -> jax.Array:
    """[B, ...] -> [B, C, H, W]."""
    return x[:, None] if c is None else jnp.transpose(x, (0, 1 + c, 1 + h, 1 + w))


def _back(x: jax.Array, h: int, w: int, c: int | None) -> jax.Array:
    return x[:, 0] if c is None else jnp.transpose(x, (0, *(1 + int(a) for a in np.argsort([c, h, w]))))


def _threat_images(threat: Any, h: int, w: int, c: int | None) -> Any:
    """The threat for rows laid out as [C, H, W]; its box has the rows' rank or is scalar."""
    lo, hi = (v if v.ndim == 0 else _images(v, h, w, c) for v in (threat.lo, threat.hi))
    return threat.replace(lo=lo, hi=hi)
