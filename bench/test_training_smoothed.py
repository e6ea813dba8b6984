"""Certified accuracy of smoothed MNIST nets at L2 radius 0.5, sigma 0.25: Gaussian augmentation beside Consistency, three seeds.

Both see the same number of noised copies. A row counts as certified at confidence 0.999. `JAXSEC_SEEDS=0` runs one seed.
"""

import os

import jax
import numpy as np
import pytest

import jaxsec
from jaxsec import train

from . import nets, training

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
SIGMA, RADIUS, COPIES = 0.25, 0.5, 2
RECIPES = {
    "gaussian": train.GaussianAugmentation(sigma=SIGMA, noises=COPIES),
    "consistency": train.Consistency(sigma=SIGMA, noises=COPIES),
}


def test_consistency_is_ahead_of_gaussian_augmentation(store, smoke):
    data, (x, y) = training.split(256, 16) if smoke else training.split()
    seeds = [0] if smoke else [int(s) for s in os.environ.get("JAXSEC_SEEDS", "0,1,2").split(",")]
    method = jaxsec.SequentialSmoothing(sigma=SIGMA, n=2000 if smoke else 100_000)
    rows = {name: [] for name in RECIPES}
    for seed in seeds:
        for name, recipe in RECIPES.items():
            model, seconds = training.ours(recipe, seed, data, training.Setting(epochs=1 if smoke else 20, shift=0))
            how = {"threat": jaxsec.L2(eps=RADIUS), "method": method, "key": jax.random.key(seed), "progress": False}
            robust = np.asarray(jaxsec.certify(model, x, y, **how).robust)
            clean = np.asarray(model(x)).argmax(1) == y
            rows[name].append({"clean": float(clean.mean()), "certified": float(robust.mean()), "seconds": seconds})
            print(f"{name} seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[name][-1].items()))
    certified = {name: [row["certified"] for row in found] for name, found in rows.items()}
    ahead = float(np.mean(certified["consistency"]) - np.mean(certified["gaussian"]))
    store(ahead=ahead, spread={name: float(np.ptp(v)) for name, v in certified.items()}, rows=rows)
    print(f"consistency is ahead by {100 * ahead:.2f} points")
    if not smoke:
        assert ahead >= 0.01
