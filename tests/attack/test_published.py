"""Published nets: the law holds and the strongest attack is stronger than the published one (bench/test_published.py has all 10,000)."""

import gzip

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsec

ROWS = 600


def mlp(p, x):
    x = x.reshape(x.shape[0], -1)
    for i in range(0, len(p), 2):
        x = x @ p[i].T + p[i + 1][None]
        x = jax.nn.relu(x) if i + 2 < len(p) else x
    return x


@pytest.fixture(scope="module")
def mnist(shared_data):
    images = gzip.open(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").read()
    labels = gzip.open(shared_data / "mnist" / "t10k-labels-idx1-ubyte.gz").read()
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784)[:ROWS].astype(np.float32) / 255
    return x, np.frombuffer(labels, np.uint8, offset=8)[:ROWS].astype(np.int32)


def test_attacks_order_as_published_on_lpd(shared_data, mnist):
    x, y = mnist
    with np.load(shared_data / "nets" / "mnist_mlp_LPD_MLP_B_0.1.npz") as file:
        model = jaxsec.bind(mlp, [jnp.asarray(file[k]) for k in file.files])
    threat = jaxsec.LInf(eps=0.1, lo=0.0, hi=1.0)
    # the published PGD: 40 steps of .01 from the clean input
    pgd = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.PGD(steps=40, step_size=0.01, random_start=False), key=jax.random.key(0))
    best = jaxsec.attack(model, x, y, threat=threat, method=jaxsec.APGD(targets=9), key=jax.random.key(0))
    # the sides of the law that need no certificate: clean error < PGD error <= APGD-T error
    clean, p, b = (float(np.mean(v)) for v in (np.asarray(pgd.first_step) == 0, np.asarray(pgd.success), np.asarray(best.success)))
    assert clean < p <= b
    assert not np.any(np.asarray(pgd.success) & ~np.asarray(best.success)), "APGD-T misses a row that 40 plain steps break"
