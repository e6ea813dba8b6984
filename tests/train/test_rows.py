"""Rows and labels that training would misread are refused wherever they are: in any row, any batch, any form."""

import jax
import numpy as np
import pytest
from train_kit import LINF, blobs, mlp, weights

from jaxsec import train

X, Y = blobs(64)
SORTED = np.argsort(Y, kind="stable")
KEY = jax.random.key(0)


def fit(data, **options):
    settings = {"recipe": train.PGDAT(threat=LINF, steps=1), "epochs": 1, "batch_size": 16, "variables": weights(scale=0.3)} | options
    return train.fit(mlp, data, key=KEY, progress=False, **settings)


def with_last(a, value):
    a = a.copy()
    a[-1] = value
    return a


SHARES = np.eye(3, dtype=np.float32)[Y]
WRONG = [
    ((X, Y[:, None]), "squeeze it"),
    ((X, SHARES[:, :2]), r"shares \[N, 3\]"),
    ((X, with_last(SHARES, -5.0)), "no shares"),
    ((X, with_last(SHARES, 0.9)), "no shares"),
    ((X, with_last(SHARES, np.nan)), "no shares"),
    ((X, Y + 0.7), "whole numbers"),
    ((X, with_last(Y, -1)), "from -1 to 2"),
    ((X, with_last(Y, 7)), "from 0 to 7"),
    ((with_last(X, np.nan), Y), "not finite"),
    ((with_last(X, 25.0), Y), "clean rows must lie in the box"),
]


@pytest.mark.parametrize(("data", "said"), WRONG, ids=range(len(WRONG)))
def test_one_wrong_row_anywhere_is_enough(data, said):
    with pytest.raises((ValueError, TypeError), match=said):
        fit(data)
    if len(data[1].shape) == 1 and "whole" not in said:  # held-out rows, and the last batch of a sequence and of a stream
        with pytest.raises(ValueError, match=said):
            fit((X, Y), validation=data)
        batches = [(data[0][i : i + 16], data[1][i : i + 16]) for i in range(0, 64, 16)]
        for form, more in ((batches, {}), (lambda epoch: iter(batches), {"steps_per_epoch": 4})):
            with pytest.raises(ValueError, match="batch 3 of epoch 0.*" + said if "box" not in said else said):
                fit(form, **more)


def test_other_forms_of_the_same_rows():
    whole = fit((X, Y))
    for data in ({"x": X, "y": Y}, (X, SHARES), (X, Y.astype(np.int64))):
        found = fit(data)
        np.testing.assert_allclose(found.net.params["a"], whole.net.params["a"], atol=1e-6)


def test_streams_that_cannot_be_begun_again_and_ragged_batches():
    batches = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, 60, 16)]
    with pytest.raises(ValueError, match="an iterator"):
        fit(iter(batches), steps_per_epoch=3)
    with pytest.raises(ValueError, match=r"batch 3 of epoch 0 has the shapes \(12, 6\)"):
        fit([*batches[:3], (X[48:60], Y[48:60])])


def test_a_stream_is_read_once_an_epoch_however_often_is_saved():
    drawn = []

    def stream(epoch):
        for i in range(4):
            drawn.append((epoch, i))
            yield X[16 * i : 16 * i + 16], Y[16 * i : 16 * i + 16]

    kept = [fit(stream, steps_per_epoch=4, epochs=2, save_every=n).net.params for n in (1, 3, 100)]
    assert drawn == 3 * [(0, 0), *((e, i) for e in range(2) for i in range(4))]
    assert all(np.array_equal(kept[0]["a"], other["a"]) for other in kept)


def test_held_out_rows_of_another_shape_and_settings_without_them():
    with pytest.raises(ValueError, match=r"rows of shape \(4,\)"):
        fit((X, Y), validation=(X[:, :4], Y))
    with pytest.raises(ValueError, match="patience is 2, and there are no rows"):
        fit((X, Y), patience=2)
    with pytest.raises(ValueError, match="save_every is -1"):
        fit((X, Y), save_every=-1)


def test_out_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="which is a file"):
        fit((X, Y), out=tmp_path / "file")
