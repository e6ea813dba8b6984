"""Regularisation, distillation and input transformations on MNIST: clean, naive and adaptive accuracy in one table.

The table of the README. Broken defences must be seen to fall: what only hides gradients ends where the undefended net is.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jaxsec
from jaxsec import train

from . import nets, training

pytestmark = pytest.mark.skipif(not nets.SHARED.is_dir(), reason="no ../shared/data beside the repository")
EPS, TEMPERATURE = 0.1, 40.0
# In front of the undefended net, as they were proposed.
TRANSFORMS = {
    "bit depth 3": (train.BitDepth(bits=3), 1),
    "JPEG 25": (train.JPEG(quality=25), 1),
    "median 3x3": (train.MedianFilter(window=3), 1),
    "Gaussian blur": (train.GaussianBlur(sigma=1.0), 1),
    "total variation": (train.TotalVariation(weight=0.1, iterations=30), 1),
    "bilateral": (train.Bilateral(sigma_range=0.3), 1),
    "resize and pad": (train.RandomResizePad(size=28, smallest=22), 1),
    "crop ensemble": (train.RandomCrop(side=24), 4),
}
# Whose nets must be trained behind them.
TRAINED = {"thermometer": train.Thermometer(levels=8, layout="chw"), "ablation": train.RandomAblation(keep=150)}


def thermometer_start(seed):
    """The start of `nets.wong` for eight channels: each with the same kernel, an eighth as large."""
    w = training.fresh(seed)
    return [w[0].repeat(8, axis=1) / 8, *w[1:]]


def models(data, epochs, smoke):
    """Every defence by name; in a smoke run one of each kind."""

    def made(recipe, net=nets.wong, weights=None, optimizer=None):
        variables = [jnp.asarray(w) for w in (training.fresh(0) if weights is None else weights)]
        net = train.net_of(net, variables) if not isinstance(net, train.Net) else net
        how = {"epochs": epochs, "batch_size": training.PLAIN.batch, "optimizer": optimizer, "progress": False}
        return train.fit(net, data, recipe=recipe, key=jax.random.key(0), **how).model

    plain = made(train.Standard())
    found = {"none": plain}
    if smoke:
        distillation = train.DefensiveDistillation(teacher=plain, temperature=TEMPERATURE)
        found["distillation"] = distillation.defence(made(distillation))
        return {**found, "JPEG 25": train.defended(plain, TRANSFORMS["JPEG 25"][0])}
    found["L2 penalty"] = made(train.L2Penalty(recipe=train.Standard(), weight=1e-3))
    found["weight decay"] = made(train.Standard(), optimizer=decayed)
    found["Jacobian"] = made(train.JacobianPenalty(recipe=train.Standard(), weight=0.1))
    found["input gradient"] = made(train.InputGradientPenalty(recipe=train.Standard(), weight=10.0))
    teacher = made(train.TemperatureTraining(temperature=TEMPERATURE))
    distillation = train.DefensiveDistillation(teacher=teacher, temperature=TEMPERATURE)
    found["distillation"] = distillation.defence(made(distillation))
    for name, (transform, draws) in TRANSFORMS.items():
        found[name] = train.defended(plain, transform, draws=draws)
    for name, transform in TRAINED.items():
        weights = thermometer_start(0) if name == "thermometer" else training.fresh(0)
        net = train.net_of(nets.wong, [jnp.asarray(w) for w in weights])
        found[name] = made(train.Standard(), net=train.defended(net, transform))
    found["PGD-AT"] = made(training.recipe_of("pgd-at", EPS))
    return found


def decayed(total):
    return train.default_optimizer(total, weight_decay=0.1)


def test_defences(store, smoke):
    data, (x, y) = training.split(256, 4) if smoke else training.split(8000, 200)
    threat = jaxsec.LInf(eps=EPS, lo=0.0, hi=1.0)
    few = jaxsec.PGD(steps=2)
    how = {"method": few, "adaptive_method": few} if smoke else {"draws": 10, "judged": 50}
    table = None
    fewer = {} if smoke else {"crop ensemble": {"draws": 3}}  # of four crops each
    for name, model in models(data, 1 if smoke else 10, smoke).items():  # an hour: every row is kept when it is there
        found = train.evaluate({name: model}, x, y, threat=threat, key=jax.random.key(1), **(how | fewer.get(name, {})))
        table = found if table is None else dataclasses.replace(table, rows=table.rows + found.rows)
        print(found.table().splitlines()[2], flush=True)
        store(eps=EPS, **table.to_dict())
    assert table is not None
    print(f"\nMNIST, Linf {EPS}, {len(y)} images\n{table.table(markdown=True)}")
    if smoke:
        return
    plain = table["none"]
    for name in ("distillation", "JPEG 25", "bit depth 3"):
        assert table[name].naive - table[name].adaptive > 0.1, name
        assert table[name].adaptive < plain.adaptive + 0.1, name
    assert table["PGD-AT"].adaptive > plain.adaptive + 0.3
