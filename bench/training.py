"""Training for the benches: the split of MNIST, a fresh `nets.wong`, our recipes, and the same ones written plainly in torch."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsec
from jaxsec import train

from . import nets

SHAPES = [(16, 1, 4, 4), (16,), (32, 16, 4, 4), (32,), (100, 1568), (100,), (10, 100), (10,)]
BATCH, STEPS, RATE, WARM = 128, 7, 2e-3, 0.3


def split(n_train: int = 8000, n_test: int = 2000) -> tuple[Any, Any]:
    """(x, y) to train on: the first images; (x, y) to test on: the last ones of the 10,000."""
    x, y = nets.mnist(10_000)
    return (x[:n_train], y[:n_train]), (x[8000 : 8000 + n_test], y[8000 : 8000 + n_test])


def fresh(seed: int) -> list[np.ndarray]:
    """Random weights of `nets.wong`, scaled for ReLU."""
    r = np.random.default_rng(seed)
    return [(r.normal(size=s) * (0 if len(s) == 1 else np.sqrt(2 / np.prod(s[1:])))).astype(np.float32) for s in SHAPES]


def recipe_of(name: str, eps: float) -> train.Recipe:
    """The recipes of the figures; eps grows from 0 over the first `WARM` of training, or the net never starts to learn."""
    threat = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0)
    made = {
        "standard": train.Standard(),
        "pgd-at": train.PGDAT(threat=threat, steps=STEPS),
        "trades": train.TRADES(threat=threat, steps=STEPS, beta=6.0),
        "fast-at": train.FastAT(threat=threat),
    }[name]
    return train.Curriculum(recipe=made, end=WARM) if made.threats else made


def ours(recipe: train.Recipe, seed: int, epochs: int, data: Any, shift: int, start: str = "relu") -> tuple[jaxsec.Model, float]:
    """(the trained net, CPU seconds of the process); start: "relu", or "ibp" for weights through which intervals keep their width."""
    begin = time.process_time()
    net = train.net_of(nets.wong, [jnp.asarray(w) for w in fresh(seed)])
    made = train.fit(
        train.ibp_init(net, jax.random.key(seed), out_axis=0) if start == "ibp" else net,
        data,
        recipe=recipe,
        epochs=epochs,
        batch_size=BATCH,
        augment=train.Shift(shift) if shift else None,
        average=0.999,
        key=jax.random.key(seed),
        progress=False,
    )
    jax.block_until_ready(made.model.params)
    return made.model, time.process_time() - begin


def plain_torch(name: str, eps: float, seed: int, epochs: int, data: Any, shift: int) -> tuple[list[np.ndarray], float]:
    """(weights, CPU seconds) of the recipe as anybody writes it: same split, net, start, schedules, augmentation and average."""
    import torch

    torch.manual_seed(seed)
    begin = time.process_time()
    net = nets.torch_net("wong", fresh(seed))
    kept = [p.detach().clone() for p in net.parameters()]
    x, y = torch.tensor(data[0]), torch.tensor(data[1]).long()
    per_epoch = len(x) // BATCH
    total = epochs * per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, max(1, total // 20), total)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.0)
    done = 0
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(per_epoch):
            rows = order[i * BATCH : (i + 1) * BATCH]
            xb, yb = _shifted(x[rows], shift), y[rows]
            now = eps * min(1.0, done / total / WARM) if name != "standard" else 0.0
            loss = torch_loss(net, name, xb, yb, now)
            optimizer.param_groups[0]["lr"] = float(schedule(done))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            optimizer.step()
            decay = min(0.999, (1 + done) / (10 + done))
            with torch.no_grad():
                for k, p in zip(kept, net.parameters(), strict=True):
                    k.mul_(decay).add_(p, alpha=1 - decay)
            done += 1
    return [k.numpy() for k in kept], time.process_time() - begin


def _shifted(x: Any, pixels: int) -> Any:
    import torch

    if not pixels:
        return x
    n, _, h, w = x.shape
    padded = torch.nn.functional.pad(x, (pixels,) * 4, mode="replicate")
    rows = torch.randint(0, 2 * pixels + 1, (n, 1)) + torch.arange(h)
    columns = torch.randint(0, 2 * pixels + 1, (n, 1)) + torch.arange(w)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def torch_loss(net: Any, name: str, x: Any, y: Any, eps: float) -> Any:
    """The loss of one batch, its adversary included."""
    import torch
    from torch.nn import functional as F

    if name == "standard":
        return F.cross_entropy(net(x), y)
    steps, size = (1, 1.25 * eps) if name == "fast-at" else (STEPS, 2.5 / STEPS * eps)
    if name == "trades":
        clean = F.softmax(net(x), 1).detach()
        at = x + 0.001 * torch.randn_like(x)
    else:
        clean, at = None, x + torch.empty_like(x).uniform_(-eps, eps)
    at = at.clamp(0, 1)
    for _ in range(steps):
        at.requires_grad_()
        z = net(at)
        up = F.cross_entropy(z, y, reduction="sum") if clean is None else F.kl_div(F.log_softmax(z, 1), clean, reduction="sum")
        (g,) = torch.autograd.grad(up, at)
        at = torch.clamp(torch.max(torch.min(at.detach() + size * g.sign(), x + eps), x - eps), 0, 1)
    if name != "trades":
        return F.cross_entropy(net(at), y)
    z = net(x)
    return F.cross_entropy(z, y) + 6.0 * F.kl_div(F.log_softmax(net(at), 1), F.softmax(z, 1), reduction="batchmean")


def robust(model: jaxsec.Model, data: Any, eps: float, smoke: bool = False) -> tuple[float, float]:
    """(clean, AutoAttack) accuracy; a smoke run attacks by two steps."""
    x, y = data
    threat, method = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0), jaxsec.PGD(steps=2) if smoke else jaxsec.AutoAttack()
    found = jaxsec.attack(model, x, y, threat=threat, method=method, key=jax.random.key(1), checks=False, progress=False)
    clean = float((np.asarray(model(x)).argmax(1) == y).mean())
    return clean, float(1 - np.asarray(found.success).mean())
