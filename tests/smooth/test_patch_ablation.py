"""Structured ablation: certificates against every patch with every content on every small binary image."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.smooth import _sampling

RNG = np.random.default_rng(2)
H, W = 2, 5
IMAGES = np.array(list(itertools.product((0.0, 1.0), repeat=H * W)), np.float32).reshape(-1, H, W, 1)


def rough(p: jax.Array, x: jax.Array) -> jax.Array:
    return 2 * jnp.sin(5 * x.reshape(len(x), -1) @ p) + jnp.array([[0.0, 1.7, 1.0]])


def turned(p: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.roll(rough(p, x), -1, 1)


def certified(model, x, sides, y=None, *, threat_layout=None, key=None, **method) -> jaxsec.SmoothedCertificate:
    method = jaxsec.PatchAblation(**{"layout": "hwc", "fill": 0.0, **method})
    threat = jaxsec.Patch(size=sides, layout=threat_layout or method.layout, lo=0.0, hi=1.0)
    y = np.ones(len(x), int) if y is None else y
    return jaxsec.certify(model, x, y, threat=threat, method=method, key=key, progress=False)


@functools.lru_cache
def reachable(sides: tuple[int, int]) -> np.ndarray:
    """[N, N] bool: which binary images differ inside one window."""
    bits = IMAGES.reshape(-1, H, W).astype(bool)
    different = bits[:, None] != bits[None]
    found = np.zeros(different.shape[:2], bool)
    for top, left in itertools.product(range(H - sides[0] + 1), range(W - sides[1] + 1)):
        outside = np.ones((H, W), bool)
        outside[top : top + sides[0], left : left + sides[1]] = False
        found |= ~np.any(different & outside, (2, 3))
    return found


SETTINGS = {
    "column": dict(kind="column", size=1),
    "row": dict(kind="row", size=1, fill=0.5),
    "wide": dict(kind="column", size=2),
    "block": dict(kind="block", size=1),
    "block-2": dict(kind="block", size=2, fill=None),
    "voted": dict(kind="block", size=1, theta=0.3, fill=None),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_no_patch_breaks_a_certificate(name: str) -> None:
    settings = SETTINGS[name]
    channels = 2 if settings.get("fill", 0.0) is None else 1
    label = 0 if name == "row" else 1  # of two votes only a class that wins ties can spare one
    model = jaxsec.bind(
        rough if label else turned, jnp.asarray(np.random.default_rng(len(name)).normal(size=(channels * H * W, 3)), jnp.float32)
    )
    said = 0
    for sides in ((1, 1), (2, 2), (1, 2), (2, 1)):
        found = certified(model, IMAGES, sides, np.full(len(IMAGES), label), **settings)
        near, kept = reachable(sides), found.predict[:, None] == found.predict[None]
        safe = np.all(kept | ~near, 1) & (found.predict == label)
        assert np.all(safe[found.robust]) and found.confidence == 1.0 and found.norm == "patch"
        said += int(found.robust.sum())
        for m in (1, 2):
            assert np.all((kept | ~reachable((m, m)))[found.radius >= m])
        if sides[0] == sides[1]:
            np.testing.assert_array_equal(found.robust, (found.radius >= sides[0]) & (found.predict == label))
    assert said > 0 and np.all(found.samples == {"column": 5, "row": 2, "block": 10}[settings["kind"]])
    if name != "voted":
        assert np.all(found.counts.sum(1) == found.samples)
    else:
        assert len(set(found.counts.sum(1).tolist())) > 2  # several classes, or none


@pytest.mark.parametrize("kind", ["column", "row", "block"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_certificates_are_attained(kind: str, size: int) -> None:
    """ "Is something there?": a white patch turns every variation that can see it. It wins exactly where the certificate ends."""
    height, width = 7, 8
    for other in (0, 1):  # the class of empty images: with 0 it wins ties
        model = jaxsec.bind(
            lambda p, x: (x.max((1, 2, 3)) - 0.5)[:, None] * p, jnp.array([[-1, 1]], jnp.float32) * (1 if other == 0 else -1)
        )
        empty = np.zeros((1, height, width, 1), np.float32)
        top = np.full(1, other)
        for sides in ((1, 1), (2, 2), (3, 3), (1, 4), (4, 2)):
            said = certified(model, empty, sides, top, kind=kind, size=size)
            stained = []
            for row, column in itertools.product(range(height - sides[0] + 1), range(width - sides[1] + 1)):
                image = empty[0].copy()
                image[row : row + sides[0], column : column + sides[1]] = 1
                stained.append(image)
            moved = certified(model, np.array(stained), sides, np.full(len(stained), other), kind=kind, size=size)
            assert bool(said.robust[0]) == bool(np.all(moved.predict == other))


def test_votes_against_a_slow_count_in_numpy() -> None:
    """Every variation built with loops, in both layouts, encoded and filled, by argmax and by theta."""
    images = RNG.random((3, 4, 5, 2)).astype(np.float32)
    for kind, (size, fill, theta) in itertools.product(("column", "row", "block"), ((2, None, None), (3, 0.25, 0.4))):
        p = RNG.normal(size=(20 * (4 if fill is None else 2), 3)).astype(np.float32)
        starts = [(r, c) for r in (range(4) if kind != "column" else (None,)) for c in (range(5) if kind != "row" else (None,))]
        counts = np.zeros((3, 3), int)
        for b, (r, c) in itertools.product(range(3), starts):
            full = np.concatenate([images[b], 1 - images[b]], -1) if fill is None else images[b]
            shown = np.full_like(full, 0.0 if fill is None else fill)
            for i, j in itertools.product(range(4), range(5)):
                if (r is None or (i - r) % 4 < size) and (c is None or (j - c) % 5 < size):
                    shown[i, j] = full[i, j]
            logits = shown.reshape(-1).astype(np.float64) @ p
            soft = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            counts[b] += (np.arange(3) == logits.argmax()) if theta is None else soft > theta
        settings = dict(kind=kind, size=size, fill=fill, theta=theta)
        model = jaxsec.bind(lambda p, x: x.reshape(len(x), -1) @ p, jnp.asarray(p))
        turned = jaxsec.bind(lambda p, x: x.transpose(0, 2, 3, 1).reshape(len(x), -1) @ p, jnp.asarray(p))
        np.testing.assert_array_equal(certified(model, images, 1, **settings).counts, counts)
        if kind == "block":
            continue  # one of both layouts is enough for it
        np.testing.assert_array_equal(certified(turned, images.transpose(0, 3, 1, 2), 1, layout="chw", **settings).counts, counts)


def test_other_fills_thetas_and_patches_compile_nothing() -> None:
    model = jaxsec.bind(rough, jnp.asarray(RNG.normal(size=(10, 3)), jnp.float32))
    settings = dict(kind="block", size=1)
    one = certified(model, IMAGES[::99], 1, theta=0.4, fill=0.0, **settings)
    before = _sampling._votes._cache_size()
    other, filled = (
        certified(model, IMAGES[::99], 2, theta=0.2, fill=0.0, **settings),
        certified(model, IMAGES[::99], 1, theta=0.4, fill=0.9, **settings),
    )
    assert _sampling._votes._cache_size() == before
    assert other.counts.sum() > one.counts.sum() and np.any(filled.counts != one.counts)


def test_a_patch_as_wide_as_the_image_changes_no_more_than_all_variations() -> None:
    from jaxsec.smooth._patch_ablation import Ablation

    band = Ablation("column", 3, "hwc", True, False, (0.0, 0.0))
    assert band.changed((7, 5), 7, 8) == 7 and band.changed((1, 8), 7, 8) == 8
    block = Ablation("block", 3, "hwc", True, False, (0.0, 0.0))
    assert block.changed((7, 1), 7, 8) == 7 * 3 and block.changed((2, 2), 7, 8) == 16


def test_mistakes_are_named() -> None:
    model = jaxsec.bind(rough, jnp.ones((10, 3)))
    x = IMAGES[:1]
    for more, match in (
        (dict(kind="diagonal", size=1), "kind is 'diagonal'; allowed are column, row, block"),
        (dict(size=0), "size is 0"),
        (dict(size=6), "size is 6, larger than the images of 2 x 5"),
        (dict(size=1, layout="nhwc"), "layout='nhwc'"),
        (dict(size=1, fill=np.nan), "fill is nan"),
        (dict(size=1, theta=1.0), "theta is 1.0"),
        (dict(size=1, threat_layout="chw"), "layout='chw' and the method 'hwc'"),
        (dict(size=1, key=jax.random.key(0)), "key is given, and PatchAblation"),
        (dict(size=1, n=3), "n is 3; PatchAblation"),
    ):
        with pytest.raises(ValueError, match=match):
            settings: dict[str, Any] = dict(more)
            band = settings.pop("size")
            layout, key = settings.pop("threat_layout", "hwc"), settings.pop("key", None)
            method = jaxsec.PatchAblation(**{"size": band, "layout": "hwc", "fill": 0.0, **settings})
            threat = jaxsec.Patch(size=1, layout=layout, lo=0.0, hi=1.0)
            jaxsec.certify(model, x, np.ones(1, int), threat=threat, method=method, key=key)
    ablation = jaxsec.PatchAblation(size=1, layout="hwc", fill=0.0)
    with pytest.raises(ValueError, match="the threat is L1; PatchAblation certifies Patch"):
        jaxsec.certify(model, x, np.ones(1, int), threat=jaxsec.L1(eps=0.1), method=ablation)
    with pytest.raises(ValueError, match="x has shape"):
        jaxsec.certify(model, x.reshape(1, 10), np.ones(1, int), threat=jaxsec.Patch(size=1, layout="hwc", lo=0.0, hi=1.0), method=ablation)
    with pytest.raises(ValueError, match=r"the threat is Patch; added noise certifies the balls.*PatchAblation Patch"):
        threat = jaxsec.Patch(size=1, layout="hwc", lo=0.0, hi=1.0)
        jaxsec.certify(model, x, np.ones(1, int), threat=threat, method=jaxsec.Smoothing(sigma=0.5), key=jax.random.key(0))
