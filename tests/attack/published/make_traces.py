"""Writes `traces.npz`: what the published code does, iterate by iterate, on a small net and from given starts.

Run by hand (`pip install torch==2.13.0 pyautoattack==0.2.0`, the authors' code under its MIT licence, used as a program only):
`python tests/attack/published/make_traces.py`. Random numbers are replaced by given ones, so that both sides start alike.
"""

import contextlib
from pathlib import Path
from unittest import mock

import numpy as np

ROWS, INPUTS, HIDDEN, CLASSES, STEPS = 16, 20, 32, 6, 50
CASES = {
    "linf-ce": ("Linf", 0.05, "ce", False),
    "linf-dlr": ("Linf", 0.05, "dlr", False),
    "linf-t": ("Linf", 0.05, "dlr-targeted", False),
    "l2-ce": ("L2", 0.2, "ce", False),
    "l1-ce": ("L1", 0.8, "ce", False),
    "l1-large": ("L1", 0.8, "ce", True),
}


def numbers() -> dict[str, np.ndarray]:
    """Weights, rows and noise."""
    r = np.random.default_rng(0)
    shapes = {"a": (INPUTS, HIDDEN), "b": (HIDDEN, HIDDEN), "c": (HIDDEN, CLASSES), "noise": (ROWS, INPUTS)}
    drawn = {name: r.normal(size=shape) for name, shape in shapes.items()}
    for name in "abc":
        drawn[name] *= np.sqrt(2 / len(drawn[name]))
    drawn["x"] = r.uniform(size=(ROWS, INPUTS))
    return {name: v.astype(np.float32) for name, v in drawn.items()}


def main() -> None:
    import torch
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    n = {name: torch.tensor(v) for name, v in numbers().items()}
    answers = []

    def net(x):
        z = torch.relu(torch.relu(x @ n["a"]) @ n["b"]) @ n["c"]
        answers.append(z.detach())
        return z

    y = net(n["x"]).argmax(1)
    out = numbers() | {"y": y.numpy()}
    unit = n["noise"] / n["noise"].abs().amax(1, keepdim=True)
    for case, (norm, eps, loss, large) in CASES.items():
        kind, named = (APGDAttack_targeted, {}) if loss == "dlr-targeted" else (APGDAttack, {"loss": loss})
        attack = kind(net, n_iter=STEPS, norm=norm, n_restarts=1, eps=eps, seed=0, eot_iter=1, device="cpu", **named)
        attack.init_hyperparam(n["x"])
        if loss == "dlr-targeted":
            attack.y_target = net(n["x"]).sort(dim=1)[1][:, -2]
        with contextlib.ExitStack() as patches:
            patches.enter_context(mock.patch("torch.rand", lambda *a, **k: (unit + 1) / 2))
            patches.enter_context(mock.patch("torch.randn", lambda *a, **k: n["noise"].clone()))
            patches.enter_context(mock.patch("torch.randn_like", lambda *a, **k: n["noise"].clone()))
            answers.clear()
            starts = [0]
            if large:
                first = int(0.3 * STEPS)
                starts = [0, first + 1, 2 * first + 2]
                found = attack.decr_eps_pgd(n["x"], y, [3 * eps, 2 * eps, eps], [first, first, STEPS - 2 * first])
            else:
                found = attack.attack_single_run(n["x"], y)
        x_best, right, best, x_adv = found
        criterion = {
            "ce": lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="none"),
            "dlr": getattr(attack, "dlr_loss", None),
            "dlr-targeted": getattr(attack, "dlr_loss_targeted", None),
        }[loss]
        losses = torch.stack([criterion(z, y) for z in answers])
        parts = [losses[a:b].cummax(0).values for a, b in zip(starts, [*starts[1:], len(losses)], strict=True)]
        out |= {
            f"{case}/best_so_far": torch.cat(parts).numpy(),
            f"{case}/x_best": x_best.detach().numpy(),
            f"{case}/best": best.detach().numpy(),
            f"{case}/x_adv": x_adv.detach().numpy(),
            f"{case}/right": right.numpy(),
        }
        print(case, tuple(losses.shape), "broken", int((~right).sum()))
    np.savez_compressed(Path(__file__).with_name("traces.npz"), **out)


if __name__ == "__main__":
    main()
