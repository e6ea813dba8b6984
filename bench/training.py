"""Training for the benches: the split of MNIST, a fresh `nets.wong`, our recipes, and the same ones written plainly in torch."""

import dataclasses
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
STEPS = 7


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a net is trained, here and in torch alike.

    start: of the weights: "relu" (He), "torch" (torch's default), "ibp" (intervals keep their width). up: share of the updates in which
    the rate climbs to `rate`; a cosine takes it to 0. ramp: share of training in which eps grows from 0. shift: of images, in pixels.
    decay: decoupled weight decay. held: of the training rows the last ones are held out, and the weights of the epoch (every fourth is
    looked at) are kept that are most robust there; torch's plain loop keeps the last ones and trains on all rows.
    """

    epochs: int = 40
    batch: int = 128
    rate: float = 2e-3
    up: float = 0.05
    ramp: float = 0.3
    shift: int = 2
    start: str = "relu"
    decay: float = 0.0
    held: int = 0

    def optimizer(self, total: int) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(self.schedule(total), weight_decay=self.decay))

    def schedule(self, total: int) -> Any:
        return optax.warmup_cosine_decay_schedule(0.0, self.rate, max(1, int(self.up * total)), total)


PLAIN = Setting()
# No ramp and small weights, as its authors train, and weight decay: with the setting above FGSM overfits (0 % robust), without decay
# small steps break half of what FGSM does not. Some runs overfit to it in part towards their end: the best epoch is kept.
FAST = Setting(epochs=40, batch=100, rate=5e-3, up=0.4, ramp=0.0, shift=1, start="torch", decay=0.1, held=400)


def split(n_train: int = 8000, n_test: int = 2000) -> tuple[Any, Any]:
    """(x, y) to train on: the first images; (x, y) to test on: the last ones of the 10,000."""
    x, y = nets.mnist(10_000)
    return (x[:n_train], y[:n_train]), (x[8000 : 8000 + n_test], y[8000 : 8000 + n_test])


def fresh(seed: int, start: str = "relu") -> list[np.ndarray]:
    """Random weights of `nets.wong`."""
    r = np.random.default_rng(seed)
    if start == "torch":
        bounds = [1 / np.sqrt(np.prod(s[1:])) for s in SHAPES[::2] for _ in "wb"]
        return [r.uniform(-b, b, size=s).astype(np.float32) for b, s in zip(bounds, SHAPES, strict=True)]
    return [(r.normal(size=s) * (0 if len(s) == 1 else np.sqrt(2 / np.prod(s[1:])))).astype(np.float32) for s in SHAPES]


def recipe_of(name: str, eps: float, how: Setting = PLAIN) -> train.Recipe:
    """The recipes of the figures; where eps is 0.3 from the first update on, many nets never start to learn."""
    threat = jaxsec.LInf(eps=eps, lo=0.0, hi=1.0)
    made = {
        "standard": train.Standard(),
        "pgd-at": train.PGDAT(threat=threat, steps=STEPS),
        "trades": train.TRADES(threat=threat, steps=STEPS, beta=6.0),
        "fast-at": train.FastAT(threat=threat),
    }[name]
    return train.Curriculum(recipe=made, end=how.ramp) if made.threats and how.ramp else made


def ours(recipe: train.Recipe, seed: int, data: Any, how: Setting = PLAIN) -> tuple[jaxsec.Model, float]:
    """(the trained net, CPU seconds of the process)."""
    begin = time.process_time()
    data, apart = ([a[: len(a) - how.held] for a in data], [a[len(a) - how.held :] for a in data])
    net = train.net_of(nets.wong, [jnp.asarray(w) for w in fresh(seed, how.start)])
    made = train.fit(
        train.ibp_init(net, jax.random.key(seed), out_axis=0) if how.start == "ibp" else net,
        tuple(data),
        recipe=recipe,
        validation=tuple(apart) if how.held else None,
        validation_attack=jaxsec.APGD(steps=50) if how.held else None,
        validate_every=4,
        epochs=how.epochs,
        batch_size=how.batch,
        optimizer=how.optimizer,
        augment=train.Shift(how.shift) if how.shift else None,
        average=0.999,
        key=jax.random.key(seed),
        progress=False,
    )
    jax.block_until_ready(made.model.params)
    return made.model, time.process_time() - begin


def plain_torch(name: str, eps: float, seed: int, data: Any, how: Setting = PLAIN) -> tuple[list[np.ndarray], float]:
    """(weights, CPU seconds) of the recipe as anybody writes it: same split, net, start, schedules, augmentation and average."""
    import torch

    torch.manual_seed(seed)
    begin = time.process_time()
    net = nets.torch_net("wong", fresh(seed, how.start))
    kept = [p.detach().clone() for p in net.parameters()]
    x, y = torch.tensor(data[0]), torch.tensor(data[1]).long()
    per_epoch = len(x) // how.batch
    total = how.epochs * per_epoch
    schedule = how.schedule(total)
    optimizer = torch.optim.AdamW(net.parameters(), lr=how.rate, weight_decay=how.decay)
    done = 0
    for _ in range(how.epochs):
        order = torch.randperm(len(x))
        for i in range(per_epoch):
            rows = order[i * how.batch : (i + 1) * how.batch]
            xb, yb = _shifted(x[rows], how.shift), y[rows]
            now = eps * min(1.0, done / total / how.ramp) if how.ramp else eps
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
    at = at if name == "fast-at" else at.clamp(0, 1)
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
