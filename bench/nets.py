"""The nets of the benches: the same weights as a JAX function and as a torch module."""

import gzip
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxsec

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def mnist(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first n test images [n, 1, 28, 28] in [0, 1] and their labels."""
    images = gzip.open(SHARED / "mnist" / "t10k-images-idx3-ubyte.gz").read()
    labels = gzip.open(SHARED / "mnist" / "t10k-labels-idx1-ubyte.gz").read()
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n].astype(np.float32) / 255
    return x, np.frombuffer(labels, np.uint8, offset=8)[:n].astype(np.int32)


def verified_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The 200 images of the verification papers, `mnist` or `cifar`, [200, C, H, W] in [0, 1], and their labels."""
    with np.load(SHARED / "nets" / f"sdp_{name}_X.npz") as x, np.load(SHARED / "nets" / f"sdp_{name}_y.npz") as y:
        return np.moveaxis(x["a"], -1, 1).astype(np.float32) / 255, y["a"].astype(np.int32)


def weights(name: str) -> list[np.ndarray]:
    """The arrays of a published net, in the file's order."""
    with np.load(SHARED / "nets" / f"{name}.npz") as file:
        return [file[k].astype(np.float32) for k in file.files]


def wong(p: list[jax.Array], x: jax.Array) -> jax.Array:
    """conv(16, 4x4, s2) - conv(32, 4x4, s2) - 100 - 10, NCHW."""
    for w, b in ((p[0], p[1]), (p[2], p[3])):
        x = jax.nn.relu(lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1))) + b[None, :, None, None])
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p[4].T + p[5][None])
    return x @ p[6].T + p[7][None]


_CIFAR = {  # mean and standard deviation of the channels
    "cnn_a": (np.array([125.3, 123.0, 113.9]) / 255, np.array([63.0, 62.1, 66.7]) / 255),
    "resnet2b": (np.array([0.4914, 0.4822, 0.4465]), np.array([0.2471, 0.2435, 0.2616])),
}


def _normalised(x: jax.Array, net: str) -> jax.Array:
    mean, deviation = (jnp.asarray(v, x.dtype)[None, :, None, None] for v in _CIFAR[net])
    return (x - mean) / deviation


def cifar_cnn_a(p: list[jax.Array], x: jax.Array) -> jax.Array:
    """`wong` on normalised CIFAR images."""
    return wong(p, _normalised(x, "cnn_a"))


def resnet2b(p: list[jax.Array], x: jax.Array) -> jax.Array:
    """conv(8, 3x3, s2) - block(16, s2) - block(16) - 100 - 10 on normalised CIFAR images, NCHW."""

    def conv(x: jax.Array, i: int, stride: int) -> jax.Array:
        pad = p[i].shape[2] // 2
        return lax.conv_general_dilated(x, p[i], (stride, stride), ((pad, pad), (pad, pad))) + p[i + 1][None, :, None, None]

    x = jax.nn.relu(conv(_normalised(x, "resnet2b"), 0, 2))
    x = jax.nn.relu(conv(jax.nn.relu(conv(x, 2, 2)), 4, 1) + conv(x, 6, 2))
    x = jax.nn.relu(conv(jax.nn.relu(conv(x, 8, 1)), 10, 1) + x)
    x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p[12].T + p[13][None])
    return x @ p[14].T + p[15][None]


def four(p: list[jax.Array], x: jax.Array) -> jax.Array:
    """32 - 32 - pool - 64 - 64 - pool - 200 - 10 with 3x3 VALID convolutions, NCHW."""
    for i in (0, 2):
        for w in p[i : i + 2]:
            x = jax.nn.relu(lax.conv_general_dilated(x, w, (1, 1), "VALID"))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return jax.nn.relu(x.reshape(x.shape[0], -1) @ p[4].T) @ p[5].T


def mlp(p: list[jax.Array], x: jax.Array) -> jax.Array:
    """784 - 100 - 100 - 10."""
    x = x.reshape(x.shape[0], -1)
    for i in range(0, len(p), 2):
        x = x @ p[i].T + p[i + 1][None]
        x = jax.nn.relu(x) if i + 2 < len(p) else x
    return x


# name -> file and eps of what was published about it
PUBLISHED = {
    "lpd": ("mnist_mlp_LPD_MLP_B_0.1", 0.1),
    "adv": ("mnist_mlp_ADV_MLP_B_0.1", 0.1),
    "nor02": ("mnist_mlp_NOR_MLP_B", 0.02),
    "nor03": ("mnist_mlp_NOR_MLP_B", 0.03),
    "nor05": ("mnist_mlp_NOR_MLP_B", 0.05),
    "wong": ("mnist_wong", 0.1),
}


# nets that were verified on `verified_images`
VERIFIED = {"mnist_cnn_a_adv": wong, "cifar_cnn_a_mix": cifar_cnn_a, "cifar_resnet2b": resnet2b}


def verified(name: str) -> jaxsec.Model:
    """One of these nets."""
    return jaxsec.bind(VERIFIED[name], [jnp.asarray(a) for a in weights(name)])


def published(name: str) -> jaxsec.Model:
    """One of these nets."""
    return jaxsec.bind(wong if name == "wong" else mlp, [jnp.asarray(a) for a in weights(PUBLISHED[name][0])])


def four_weights() -> list[np.ndarray]:
    """Random, scaled for ReLU."""
    r = np.random.default_rng(0)
    shapes = ((32, 1, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (200, 1024), (10, 200))
    return [(r.normal(size=s) * np.sqrt(2 / np.prod(s[1:]))).astype(np.float32) for s in shapes]


def both(name: str) -> tuple[jaxsec.Model, Any]:
    """`wong` or `four` for jaxsec and for torch, with the same weights."""
    arrays = weights("mnist_wong") if name == "wong" else four_weights()
    return jaxsec.bind(wong if name == "wong" else four, [jnp.asarray(a) for a in arrays]), torch_net(name, arrays)


def torch_net(name: str, arrays: list[np.ndarray]) -> Any:
    """The torch twin of `wong` or `four`."""
    import torch
    from torch import nn

    if name == "wong":
        layers = [
            nn.Conv2d(1, 16, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1568, 100),
            nn.ReLU(),
        ]
        layers.append(nn.Linear(100, 10))
    else:
        layers = []
        for i, o in ((1, 32), (32, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(i, o, 3, bias=False), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if i == o else []
        layers += [nn.Flatten(), nn.Linear(1024, 200, bias=False), nn.ReLU(), nn.Linear(200, 10, bias=False)]
    net = nn.Sequential(*layers).eval()
    for parameter, array in zip(net.parameters(), arrays, strict=True):
        parameter.data = torch.tensor(array)
    return net
