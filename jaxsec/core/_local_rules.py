"""Rules for values of which only a window has changed: convolutions compute the positions it reaches, all else keeps track of it."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from .._native import Images, Stage, local_chain, reach
from ._layout import Flat, Laid, Pending
from ._rewrite_rules import UNARY_SAFE, Rule, conv_parts, dense_weights, elementwise, rules

_LINES = 64  # of a dense layer's sum that are kept apart


class Tape:
    """The remembered outputs of the local operations, in program order, and the new ones."""

    def __init__(self, caches: tuple[jax.Array, ...] | None, room: int):
        self.caches, self.room = caches, room  # room: floats a row that may still be remembered
        self.sites: list[Site] = []

    def remembered(self, shape: tuple[int, ...]) -> jax.Array:
        """What the next operation gave last time; at the first time windows are whole and nobody reads it."""
        return jnp.zeros(shape, jnp.float32) if self.caches is None else self.caches[len(self.sites)]

    def affords(self, shape: tuple[int, ...]) -> bool:
        """Whether there is room for an output of this shape."""
        return math.prod(shape[1:]) <= self.room

    def found(self) -> list[Images]:
        return [site.images() for site in self.sites]


class Site:
    """Images, known or to be had by a convolution of another site's: those that nobody else asks for run as one chain."""

    def __init__(self, tape: Tape, images: Images | None = None, source: "Site | None" = None, stage: Stage | None = None):
        self.tape, self.source, self.stage = tape, source, stage
        self._images, self.total = images, None

    def images(self) -> Images:
        if self._images is None:
            chain: list[Any] = [self]
            while chain[0].source._images is None:
                chain.insert(0, chain[0].source)
            found, self.total = local_chain(chain[0].source.images(), [site.stage for site in chain])
            for site, images in zip(chain, found, strict=True):
                site._images = images
        assert self._images is not None
        return self._images


class Local(Laid):
    """Images [N, H, W, C] in memory, of which a window has changed. Whoever reads `array` gets them whole."""

    def __init__(self, perm: tuple[int, ...], shape: tuple[int, ...], site: Site):
        self.perm, self.shape, self.site = perm, shape, site

    @classmethod
    def known(cls, array: jax.Array, perm: tuple[int, ...], shape: tuple[int, ...], window: jax.Array, tape: Tape) -> "Local":
        """A value known everywhere."""
        return cls(perm, shape, Site(tape, Images(array, array, window)))

    @classmethod
    def staged(cls, source: Site, stage: Stage, perm: tuple[int, ...], shape: tuple[int, ...]) -> "Local":
        """The output of a convolution."""
        site = Site(source.tape, source=source, stage=stage)
        source.tape.sites.append(site)
        source.tape.room -= math.prod(shape[1:])
        return cls(perm, shape, site)

    @property
    def array(self) -> jax.Array:  # pyright: ignore[reportIncompatibleVariableOverride]
        images = self.site.images()
        return images.base if images.base is images.fresh else images.merged()

    @property
    def extent(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.perm)

    def after(self, out: Any, window: jax.Array | None = None) -> Any:
        """`out`, the whole result of an operation on this value, with the window that has changed."""
        if not isinstance(out, Laid) or len(out.perm) != 4:
            return out
        return Local.known(out.array, out.perm, out.shape, self.site.images().window if window is None else window, self.site.tape)

    def mapped(self, function: Any) -> "Local":
        return self.after(super().mapped(function))


class LocalPending(Pending):
    """A convolution of a `Local`."""

    x: Local  # pyright: ignore[reportIncompatibleVariableOverride]

    def convolved(self, relu: bool) -> Laid:
        site = self.x.site
        base = site.tape.remembered(tuple(self.shape[a] for a in self.perm))
        return Local.staged(site, Stage(base, self.w, self.bias, self.stride, self.pads, relu), self.perm, self.shape)


def _run(values: list[Any]) -> list[Any]:
    return [v.run() if isinstance(v, Pending) else v for v in values]


def _conv(eqn: Any, values: list[Any], rule: Rule) -> Any:
    x, w = _run(values)
    parts = conv_parts(eqn, w) if isinstance(x, Local) else None
    if parts is None or parts.order != x.perm or len(x.perm) != 4 or not x.site.tape.affords(parts.shape):
        return rule(eqn, [x, w])
    return LocalPending(x, *parts[:-1], True)


def _dot(eqn: Any, values: list[Any], rule: Rule) -> Any:
    """A dense layer over a flattened image as a sum of lines, each computed again where the window meets it."""
    x, w = _run(values)
    source = x.source if isinstance(x, Flat) else None
    weights = dense_weights(eqn, x, w) if isinstance(source, Local) and len(source.shape) == 4 else None
    if weights is None or not isinstance(source, Local) or source.extent[1] > _LINES:
        return rule(eqn, [x, w])
    (n, h, wide, c), o, tape = source.extent, weights.shape[-1], source.site.tape
    if not tape.affords((n, h, o)):
        return rule(eqn, [x, w])
    base = tape.remembered((n, h, 1, o))
    stage = Stage(base, weights.reshape(h, 1, wide, c, o), jnp.zeros(o, jnp.float32))
    site = Local.staged(source.site, stage, (0, 1, 2, 3), (n, h, 1, o)).site
    site.images()
    return site.total


def _elementwise(eqn: Any, values: list[Any], rule: Rule | None) -> Any:
    out = rule(eqn, values) if rule is not None else None
    if out is not None:
        return out
    values = _run(values)
    changed = [v for v in values if isinstance(v, Local)]
    out = elementwise(eqn, values)
    if not changed or not isinstance(out, Laid) or any(v.perm != out.perm for v in changed):
        return out
    if not all(isinstance(v, Local) or _constant(v, out.perm[0]) for v in values):
        return out
    window = changed[0].site.images().window
    for v in changed[1:]:  # the window that holds both
        other = v.site.images().window
        window = jnp.where(jnp.array([True, False, True, False]), jnp.minimum(window, other), jnp.maximum(window, other))
    return changed[0].after(out, window)


def _constant(v: Any, batch: int) -> bool:
    """The same for all rows: broadcast along the traced axis `batch`, which is always longer than 1 here."""
    if isinstance(v, Laid):
        return v.array.ndim == 0 or v.array.shape[v.perm.index(batch)] == 1
    return not isinstance(v, Flat) and (jnp.ndim(v) == 0 or v.shape[batch] == 1)


def _transpose(eqn: Any, values: list[Any], rule: Rule) -> Any:
    (v,) = _run(values)
    if not isinstance(v, Local):
        return rule(eqn, [v])
    order = eqn.params["permutation"]  # nothing moves in memory
    return Local(tuple(order.index(a) for a in v.perm), tuple(v.shape[a] for a in order), v.site)


def _pool(eqn: Any, values: list[Any], rule: Rule) -> Any:
    (v,) = _run(values)
    out = rule(eqn, [v])
    if not isinstance(v, Local) or not isinstance(out, Laid):
        return out
    sizes, strides, pads = ([eqn.params[k][a] for a in v.perm] for k in ("window_dimensions", "window_strides", "padding"))
    if sizes[0] != 1 or sizes[3] != 1 or strides[1] != strides[2]:
        return out
    h, wide = (out.shape[a] for a in out.perm[1:3])
    height, width = v.extent[1:3]
    window = reach(v.site.images().window, (height, width), (sizes[1], sizes[2]), strides[1], (pads[1], pads[2]), (h, wide))
    return v.after(out, window)


_LOCAL = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "transpose": _transpose,
    "reduce_window_max": _pool,
    "reduce_window_sum": _pool,
}


def local_rules() -> dict[str, Rule]:
    """The native table, aware of windows."""
    table = rules(True)

    def bound(name: str) -> Rule:
        rule: Any = _LOCAL.get(name, _elementwise)
        return lambda eqn, values: rule(eqn, values, table.get(name))

    return {**table, **{name: bound(name) for name in (*_LOCAL, *UNARY_SAFE)}}
