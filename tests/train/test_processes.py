"""A run of two processes, as on two hosts: the same curve, one folder between them, and it goes on after both were killed."""

import json
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
from train_kit import LINF, blobs, mlp, weights

import jaxsec

KIT = pathlib.Path(__file__).with_name("process_kit.py")


def both(folder, epochs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(KIT)]
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(folder), str(epochs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    try:
        said = [run.communicate(timeout=300) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert all(run.returncode == 0 for run in runs), said[0][1][-3000:] + said[1][1][-3000:]
    return [out.splitlines()[-1:] for out, _ in said]


def test_two_processes_train_as_one(tmp_path):
    both(tmp_path, 2)  # ends in the second epoch
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    (first,), (second,) = both(tmp_path, 99)
    assert first == second
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in lines] == [0, 1, 2]  # one of them writes
    alone = jaxsec.fit(
        mlp, blobs(64), variables=weights(), recipe=jaxsec.train.IBPTraining(threat=LINF), epochs=3, batch_size=16, validation=0.25,
        validation_attack=jaxsec.FGSM(), key=jax.random.key(0), progress=False,
    )  # fmt: skip
    names = ("loss", "validation_robust", "validation_certified")
    np.testing.assert_allclose(json.loads(first), [[row[k] for k in names] for row in alone.history], rtol=1e-4)
