"""Whole attacks lower for TPUs and GPUs on this machine without either: native code is left behind, nothing else is needed.

Run as a script it does the work in a process of one CPU device, where programs hold native code; the test reads what it prints.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import jaxsec
from jaxsec.threat import named

CASES = {
    "pgd": ("linf", jnp.float32, jaxsec.PGD(steps=3)),
    "pgd half": ("l2", jnp.bfloat16, jaxsec.PGD(steps=3)),
    "apgd": ("l1", jnp.float32, jaxsec.APGD(steps=5, targets=2)),
    "fab": ("l2", jnp.float32, jaxsec.FAB(steps=3, targets=2)),
    "square": ("linf", jnp.float32, jaxsec.Square(steps=10)),
}


def net(p, x):
    x = x.astype(jnp.float32)
    for w in p["convolutions"]:
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, w, (2, 2), "SAME"))
    return x.reshape(x.shape[0], -1) @ p["dense"]


def main() -> None:
    r = np.random.default_rng(0)
    shapes = [(8, 1, 3, 3), (16, 8, 3, 3)]
    params = {"convolutions": [r.normal(size=s).astype("f") for s in shapes], "dense": r.normal(size=(16 * 16, 5)).astype("f")}
    model, y = jaxsec.bind(net, params), np.zeros(8, int)
    for name, (norm, dtype, method) in CASES.items():
        x = jnp.asarray(r.uniform(size=(8, 1, 16, 16)), dtype)
        threat = named(norm, eps=0.1, lo=0.0, hi=1.0)
        attack = jax.jit(lambda model, x, y, key, t=threat, m=method: jaxsec.attack(model, x, y, threat=t, method=m, key=key).success)
        text = {
            "accelerators": jax.export.export(attack, platforms=["tpu", "cuda"])(model, x, y, jax.random.key(0)).mlir_module(),
            "cpu": attack.lower(model, x, y, jax.random.key(0)).as_text(),
        }
        print(json.dumps({"name": name, **{k: v.count("jaxsec_") for k, v in text.items()}}))


def test_attacks_lower_for_every_platform():
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    root = str(pathlib.Path(__file__).parents[2])
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=env, cwd=root)
    assert run.returncode == 0, run.stderr[-2000:]
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [f["name"] for f in found] == list(CASES)
    assert all(f["accelerators"] == 0 and f["cpu"] > 0 for f in found), found


if __name__ == "__main__":
    main()
