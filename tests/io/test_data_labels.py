"""Labels in a file of their own: which are allowed, found, and named; messages name a file as it was typed."""

import numpy as np
import pytest

from jaxsec.io import DataError, check_data, load_data

X, Y = np.full((3, 2, 2), 0.5, np.float32), np.array([0, 1, 1])


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


@pytest.mark.parametrize("name", ["y.npy", "y.npz", "two.npz"])
def test_an_npz_of_inputs_takes_labels_of_another_file(tmp_path, name):
    np.savez(tmp_path / "data.npz", a=X)
    np.save(tmp_path / "y.npy", Y)
    np.savez(tmp_path / "y.npz", whatever=Y)
    np.savez(tmp_path / "two.npz", y=Y, weights=Y * 0.5)
    data = load_data(tmp_path / "data.npz", x_key="a", labels=tmp_path / name)
    assert data.y.tolist() == Y.tolist() and data.labels == str(tmp_path / name)
    np.save(tmp_path / "x.npy", X)
    assert load_data(tmp_path / "x.npy", labels=tmp_path / name).y.tolist() == Y.tolist()


def test_what_cannot_be_labels_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", a=X)
    np.savez(tmp_path / "own.npz", x=X, y=Y)
    np.savez(tmp_path / "two.npz", first=Y, second=Y)
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"holds its own labels; leave it out"):
        load_data(tmp_path / "own.npz", labels=tmp_path / "two.npz")
    with pytest.raises(DataError, match=r"two\.npz has no key 'y'.*y_key='first'"):
        load_data(tmp_path / "data.npz", x_key="a", labels=tmp_path / "two.npz")
    with pytest.raises(DataError, match=r"bad\.npz is no NPZ file"):
        load_data(tmp_path / "data.npz", x_key="a", labels=tmp_path / "bad.npz")
    with pytest.raises(DataError, match=r"no key 'x'.*x_key='a'"):
        load_data(tmp_path / "data.npz", labels=tmp_path / "two.npz")
    with pytest.raises(DataError, match=r"another file are given with labels="):
        load_data(tmp_path / "data.npz", x_key="a")


def test_labels_found_beside_the_images_are_named(tmp_path):
    (tmp_path / "t-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((3, 2, 2), np.uint8)))
    (tmp_path / "t-labels-idx1-ubyte").write_bytes(idx_bytes(Y.astype(np.uint8)))
    data = load_data(tmp_path / "t-images-idx3-ubyte")
    assert data.labels == str(tmp_path / "t-labels-idx1-ubyte")
    assert "labels from t-labels-idx1-ubyte, found beside the images" in data.notes
    given = load_data(tmp_path / "t-images-idx3-ubyte", labels=tmp_path / "t-labels-idx1-ubyte")
    assert given.labels == data.labels and not any("found beside" in note for note in given.notes)


def test_messages_name_the_file_as_it_was_typed(tmp_path):
    file = tmp_path / "zero.npz"
    np.savez(file, x=X[:0], y=Y[:0])
    with pytest.raises(DataError, match=f"^{file} has 0 inputs"):
        load_data(file)
    np.savez(file, x=np.where(X > 0, np.nan, X), y=Y)
    with pytest.raises(DataError, match=f"^{file} has NaN"):
        load_data(file)
    np.savez(file, x=X, y=Y)
    with pytest.raises(DataError, match=f"the values of {file} range"):
        load_data(file, value_range=(2, 3))
    data = load_data(file)
    data.x[0] = 7.0
    with pytest.raises(DataError, match=f"^{file} has values"):
        check_data(data)
