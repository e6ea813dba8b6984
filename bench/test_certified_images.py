"""Certified accuracy of the published convolutional nets on the 200 images of the verification papers, under the attacked one (percent)."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec
from jaxsec.certify import Verdict

from . import nets

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")

# eps, images and seconds each; clean accuracy on the 200; beta-CROWN as published (3 minutes an image on a GPU, all 200)
BRANCHED = {
    "mnist_cnn_a_adv": ("mnist", 0.3, 97.5, 70.5),
    "cifar_cnn_a_mix": ("cifar", 2 / 255, 79.0, 41.5),
}
IMAGES, SECONDS = 40, 60.0


def sandwich(name: str, images: str, eps: float, rows: int, methods, store, smoke: bool, **more: object) -> float:
    """Stores certified beside attacked accuracy of the first rows; clean accuracy of all images."""
    x, y = nets.verified_images(images)
    model = nets.verified(name)
    clean = 100 * float(np.mean(np.argmax(np.asarray(model(jnp.asarray(x))), 1) == y))
    x, y = x[:rows], y[:rows]
    threat = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0)
    attack = jaxsec.PGD(steps=5) if smoke else jaxsec.AutoAttack()
    broken = np.asarray(jaxsec.attack(model, x, y, threat=threat, method=attack, key=jax.random.key(0), checks=False).success)
    begin = time.perf_counter()
    found = jaxsec.certify(model, x, y, threat=threat, method=methods, progress=False)
    seconds = time.perf_counter() - begin
    status, robust, by = np.asarray(found.status), np.asarray(found.robust), np.asarray(found.method)
    undecided = np.flatnonzero(~broken & (status == Verdict.OPEN)).tolist()
    store(
        net=name, eps=eps, rows=rows, clean_of_all=clean, attacked=100 * float(np.mean(~broken)), certified=100 * float(np.mean(robust)),
        methods=list(found.methods), by=[int(np.sum(by == i)) for i in range(len(found.methods))],
        status={v.name: int(np.sum(status == v)) for v in Verdict}, undecided=undecided,
        seconds=seconds, **more,
    )  # fmt: skip
    assert not np.any(robust & broken)
    return clean


@pytest.mark.parametrize("eps", [1 / 255, 2 / 255], ids=["1_255", "2_255"])
def test_resnet2b(eps, store, smoke):
    """By CROWN and alpha-CROWN; what alpha-CROWN adds is on top."""
    methods = [jaxsec.CROWN()] if smoke else [jaxsec.CROWN(), jaxsec.AlphaCROWN()]
    sandwich("cifar_resnet2b", "cifar", eps, 4 if smoke else 200, methods, store, smoke)


@pytest.mark.parametrize("name", BRANCHED)
def test_branch_and_bound(name, store, smoke):
    images, eps, clean, published = BRANCHED[name]
    methods = [jaxsec.CROWN(), jaxsec.AlphaCROWN(), jaxsec.BetaCROWN(timeout=SECONDS)]
    more = {"published_on_200": published, "seconds_each": SECONDS}
    assert sandwich(name, images, eps, 2 if smoke else IMAGES, methods[:1] if smoke else methods, store, smoke, **more) == clean
