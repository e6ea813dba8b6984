"""Every data format, written here and read back; every fault with its message."""

import dataclasses
import gzip

import numpy as np
import pytest

import jaxsec
import jaxsec.io
from jaxsec.io import DataError, Dataset, check_data, load_data, train_test

RNG = np.random.default_rng(0)


def idx_bytes(array):
    code = {"uint8": 8, "int32": 0x0C, "float32": 0x0D}[array.dtype.name]
    head = bytes([0, 0, code, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def test_digits():
    data = load_data("digits")
    assert data.x.shape == (1797, 64) and data.x.dtype == np.float32 and data.y.dtype == np.int32
    assert data.n_classes == 10 and data.value_range == (0.0, 1.0) and data.x.max() == 1.0
    images = load_data("digits", layout="NHWC")
    assert images.x.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(images.x.reshape(1797, 64), data.x)
    assert load_data("digits").sha256 == data.sha256 != images.sha256
    assert load_data("digits", limit=7).n_classes == 10


def test_split_is_by_content():
    data = load_data("digits")
    train, test = train_test(data)
    assert len(train) + len(test) == len(data) and 0.2 < len(test) / len(data) < 0.3
    order = RNG.permutation(len(data))
    shuffled = train_test(data.rows(order))[1]
    assert {r.tobytes() for r in shuffled.x} == {r.tobytes() for r in test.x}
    doubled = data.rows(np.r_[np.arange(100), np.arange(100)])
    parts = [{r.tobytes() for r in part.x} for part in train_test(doubled)]
    assert not parts[0] & parts[1]
    assert load_data("digits", split="test").sha256 == test.sha256
    assert train_test(data, seed=1)[1].sha256 != test.sha256
    with pytest.raises(DataError, match="test is 1"):
        train_test(data, test=1.0)


def test_npz_and_npy(tmp_path):
    x, y = RNG.uniform(size=(6, 3, 5, 5)), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "d.npz", x=x, y=y)
    data = load_data(tmp_path / "d.npz", layout="NHWC")
    np.testing.assert_allclose(data.x, np.moveaxis(x, 1, -1), rtol=1e-6)
    assert data.layout == "NHWC" and data.name == "d" and any("assumed to be [0, 1]" in n for n in data.notes)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.eye(3)[y])
    again = load_data(tmp_path / "x.npy", labels=tmp_path / "y.npy", layout="NHWC")
    np.testing.assert_array_equal(again.y, y)
    assert again.sha256 == data.sha256
    np.savez(tmp_path / "b.npz", images=np.arange(12, dtype=np.uint8).reshape(3, 4), target=[0, 1, 1])
    with pytest.raises(DataError, match=r"has no key 'x', 'y'; it has 'images', 'target'. .* x_key='images' and y_key='target'"):
        load_data(tmp_path / "b.npz")
    raw = load_data(tmp_path / "b.npz", x_key="images", y_key="target")
    assert raw.value_range == (0.0, 255.0) and any("bytes kept" in n for n in raw.notes)
    unit = load_data(tmp_path / "b.npz", x_key="images", y_key="target", divide_by=255, value_range=(0, 1))
    assert unit.x.max() == np.float32(11) / np.float32(255)
    np.savez(tmp_path / "o.npz", x=np.array([{}, {}], dtype=object), y=[0, 1])
    with pytest.raises(DataError, match="no NPZ file of plain arrays"):
        load_data(tmp_path / "o.npz")
    with pytest.raises(DataError, match=r"pass labels="):
        load_data(tmp_path / "x.npy")


def test_idx(tmp_path):
    x, y = RNG.integers(0, 256, (5, 4, 4)).astype(np.uint8), np.array([3, 0, 1, 2, 3], np.uint8)
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx_bytes(x))
    with pytest.raises(DataError, match=r"holds images only; pass labels="):
        load_data(tmp_path / "a-images-idx3-ubyte")
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(idx_bytes(y))
    data = load_data(tmp_path / "a-images-idx3-ubyte", layout="flat")
    np.testing.assert_allclose(data.x, x.reshape(5, 16) / 255, rtol=1e-6)
    assert data.value_range == (0.0, 1.0) and "divided by 255" in data.notes[0]
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx_bytes(x)[:-3])
    with pytest.raises(DataError, match=r"shape \(5, 4, 4\) needs 80 bytes of data, it has 77"):
        load_data(tmp_path / "a-images-idx3-ubyte")


def test_mnist(shared_data):
    mnist = load_data(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz")
    assert mnist.x.shape == (10000, 1, 28, 28) and mnist.layout == "NCHW"
    assert np.bincount(mnist.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # the published class counts


def test_cifar_binary(tmp_path):
    pixels, y = RNG.integers(0, 256, (4, 3, 32, 32)).astype(np.uint8), np.array([9, 0, 3, 3], np.uint8)
    batch = np.concatenate([y[:, None], pixels.reshape(4, -1)], 1).tobytes()
    (tmp_path / "test_batch.bin").write_bytes(batch)
    data = load_data(tmp_path / "test_batch.bin", mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    want = (pixels / 255 - np.reshape([0.5, 0.4, 0.3], (3, 1, 1))) / np.reshape([0.2, 0.2, 0.1], (3, 1, 1))
    np.testing.assert_allclose(data.x, want, rtol=1e-4, atol=1e-5)
    assert data.value_range[0].shape == (3, 1, 1) and data.value_range[1][2, 0, 0] == pytest.approx(7.0)
    check_data(data)
    last = load_data(tmp_path, layout="NHWC", mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.1])
    np.testing.assert_allclose(np.moveaxis(last.x, -1, 1), data.x, rtol=1e-6)
    with pytest.raises(DataError, match=r"without data_batch_1\.bin, .* its train part"):
        load_data(tmp_path, split="train")
    with pytest.raises(DataError, match=r"one number per channel \(3 in layout 'NCHW'\)"):
        load_data(tmp_path, mean=[0.5, 0.5])
    (tmp_path / "cut.bin").write_bytes(batch[:-1])
    with pytest.raises(DataError, match="no multiple of 3073"):
        load_data(tmp_path / "cut.bin")


def test_csv(tmp_path):
    text = "width,kind,height\n1.5,b,2\n-1,a,3e1\n0,b,4\n"
    (tmp_path / "t.csv").write_text(text)
    data = load_data(tmp_path / "t.csv", label_column="kind")
    assert data.x.tolist() == [[1.5, 2.0], [-1.0, 30.0], [0.0, 4.0]] and data.y.tolist() == [1, 0, 1]
    assert "['a', 'b']" in data.notes[0] and data.value_range == (-1.0, 30.0)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert load_data(tmp_path / "t.csv.gz", label_column="kind").sha256 == data.sha256
    (tmp_path / "n.csv").write_text("1;2;0\n3;4;1\n")
    assert load_data(tmp_path / "n.csv", label_column=-1).y.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"no column 'class'; its columns are 'width', 'kind', 'height'"):
        load_data(tmp_path / "t.csv", label_column="class")
    with pytest.raises(DataError, match=r"which of its 3 columns .* label_column='height'"):
        load_data(tmp_path / "t.csv")
    for body, message in [
        ("a,y\n1,0\nx,1\n", r"line 3, column 'a': 'x' is no number"),
        ("a,y\n1,0\n2\n", r"line 3 has 1 columns"),
        ("a,y\n", "a header and no rows"),
        ("", "is empty"),
        ("a,y\nnan,0\n1,1\n", "NaN or infinite inputs, first in row 0"),
        ("a,y\n1,0.5\n1,1\n", r"such as 0\.5 are no class numbers"),
    ]:
        (tmp_path / "bad.csv").write_text(body)
        with pytest.raises(DataError, match=message):
            load_data(tmp_path / "bad.csv", label_column="y")


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((3, 2)), [0, 1], {}, "3 inputs and 2 labels"),
        (np.zeros((0, 2)), np.zeros(0, int), {}, "0 inputs and 0 labels"),
        (np.full((2, 2), np.inf), [0, 1], {}, "NaN or infinite inputs, first in row 0"),
        (
            np.zeros((2, 2)),
            [1, 3],
            {"n_classes": 3},
            r"range from 1 to 3; allowed: 0 to 2. First in row 1, .* They look 1-based",
        ),
        (np.zeros((2, 2)), [-1, 1], {}, "marked -1 and 1"),
        (np.full((2, 2), 200.0), [0, 1], {"value_range": (0, 1)}, r"range from 200 to 200, outside value_range=\(0, 1\); .* divide_by=255"),
        (np.zeros((2, 2)), [0, 1], {"value_range": (1, 0)}, "must be below"),
        (np.zeros((2, 4)), [0, 1], {"layout": "NCHW"}, r"flat rows of 4 numbers, .* reshape the array in the file to \[N, C, H, W\]"),
        (np.zeros((2, 3, 5, 3)), [0, 1], {"layout": "NCHW"}, r"stored_layout='NCHW' \(channels first\) or stored_layout='NHWC'"),
        (np.zeros((2, 4)), [0, 1], {"layout": "CHW"}, "layout is 'CHW'"),
        (np.zeros((2, 4)), [0, 1], {"std": 0.0}, "every std above 0"),
        (np.zeros((2, 4)), [0, 1], {"limit": 0}, "limit is 0"),
        (np.zeros((2, 4)), [0, 1], {"split": "val"}, "split is 'val'"),
        (np.zeros(2), [0, 1], {}, r"shape \(2,\); each row needs at least one number"),
        (np.array([["a"], ["b"]]), [0, 1], {}, "allowed are numbers"),
    ],
)
def test_faults(tmp_path, x, y, options, message):
    np.savez(tmp_path / "d.npz", x=x, y=y)
    with pytest.raises(DataError, match=message):
        load_data(tmp_path / "d.npz", **options)


def test_unknown_and_missing_files(tmp_path):
    with pytest.raises(DataError, match="there are no data at"):
        load_data(tmp_path / "none.npz")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="has no known ending"):
        load_data(tmp_path / "x.parquet")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(DataError, match="no NPZ file"):
        load_data(tmp_path / "x.npz")
    np.save(tmp_path / "y.npy", np.arange(3))
    with pytest.raises(DataError, match="there is no file"):
        load_data(tmp_path / "y.npy", labels=tmp_path / "none.npy")


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.npy", "a.bin", "a-images-idx3-ubyte"])
def test_empty_files_and_folders_are_said(tmp_path, name):
    np.save(tmp_path / "y.npy", np.arange(3))
    options = {"labels": tmp_path / "y.npy"} if name in ("a.npy", "a-images-idx3-ubyte") else {}
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"is empty \(0 bytes\)"):
        load_data(tmp_path / name, **options)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="is a folder"):
        load_data(tmp_path / name, **options)


def test_damaged_gzip_of_every_kind(tmp_path):
    good = gzip.compress(b"a,b,y\n" + b"".join(b"%d,%d,0\n" % (i, i * i) for i in range(99)))
    for damaged in (good[:-20], good[:40] + bytes(8) + good[48:], good[:12], b"\x1f\x8bnonsense"):
        (tmp_path / "t.csv.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"gzipped, but damaged: .* Copy or pack it again"):
            load_data(tmp_path / "t.csv.gz", label_column="y")


def test_arrays_in_the_wrong_kind_of_file(tmp_path):
    for name, save in (("d.npz", np.save), ("d.npy", np.savez)):
        with open(tmp_path / name, "wb") as file:
            save(file, np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"holds a single array; name it \.npy"):
        load_data(tmp_path / "d.npz")
    with pytest.raises(DataError, match="is an NPZ archive, not one array"):
        load_data(tmp_path / "d.npy", labels=tmp_path / "d.npy")
    np.savez(tmp_path / "o.npz", x=np.array([{}, {}], dtype=object), y=[0, 1])
    with pytest.raises(DataError, match="it holds Python objects, which are not read; save arrays of numbers"):
        load_data(tmp_path / "o.npz")
    np.savez(tmp_path / "one.npz", x=np.zeros((2, 3)))
    with pytest.raises(DataError, match="Two arrays are needed"):
        load_data(tmp_path / "one.npz")
    np.savez(tmp_path / "half.npz", x=np.zeros((2, 3)), target=[0, 1])
    with pytest.raises(DataError, match=r"has no key 'y'; .* e.g. y_key='target'"):
        load_data(tmp_path / "half.npz")


def test_labels_given_where_none_are_needed(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)), y=[0, 1])
    np.save(tmp_path / "y.npy", [0, 1])
    for spec in (tmp_path / "d.npz", "digits"):
        with pytest.raises(DataError, match=r"labels='.*y\.npy' was given, but .* its own labels; leave it out"):
            load_data(spec, labels=tmp_path / "y.npy")
        with pytest.raises(DataError, match=r"label_column='kind' .* leave it out"):
            load_data(spec, label_column="kind")


def test_long_tables_name_ten_columns_and_the_last(tmp_path):
    names = [f"f{i}" for i in range(30)] + ["target"]
    (tmp_path / "t.csv").write_text("\n".join([",".join(names), *[",".join(["0.5"] * 30 + ["1"])] * 3]))
    with pytest.raises(DataError, match=r"label_column='target'\. The columns are 'f0', .*'f9' and 21 more, the last 'target'\.$"):
        load_data(tmp_path / "t.csv")
    with pytest.raises(DataError, match=r"no column 'tarket'; .* and 21 more, the last 'target'\. Did you mean 'target'\?"):
        load_data(tmp_path / "t.csv", label_column="tarket")
    with pytest.raises(DataError, match=r"label_column is 31; .* so -31 to 30 are allowed"):
        load_data(tmp_path / "t.csv", label_column=31)
    with pytest.raises(DataError, match="has a header, so its label column is given by name: label_column='target'"):
        load_data(tmp_path / "t.csv", label_column=-1)
    (tmp_path / "n.csv").write_text("1,2,0\n3,4,1\n")
    with pytest.raises(DataError, match="by position: label_column=-1 for the last"):
        load_data(tmp_path / "n.csv")


def dataset(x, y, **changes):
    fields = {"name": "d", "n_classes": 3, "layout": "NHWC", "value_range": (0.0, 1.0), "source": "test", "sha256": ""}
    return Dataset(np.asarray(x, np.float32), np.asarray(y, np.int32), **{**fields, **changes})


def linear(shape, k, told=True):
    def net(params, x):
        return x.reshape(x.shape[0], -1) @ params

    info = jaxsec.ModelInfo(input_shape=shape, n_classes=k) if told else None
    return jaxsec.bind(net, np.zeros((int(np.prod(shape)), k), np.float32), info=info)


def test_check_data_against_a_model():
    data = dataset(np.zeros((4, 5, 5, 3)), [0, 1, 2, 2])
    assert check_data(data, linear((5, 5, 3), 3)) == ()
    assert check_data(data, linear((5, 5, 3), 3, told=False)) == ()
    with pytest.raises(DataError, match=r"channels-last: load them with layout='NCHW'"):
        check_data(data, linear((3, 5, 5), 3))
    first = dataset(np.zeros((4, 3, 5, 5)), [0, 1, 2, 2], layout="NCHW")
    with pytest.raises(DataError, match=r"channels-first: load them with layout='NHWC'"):
        check_data(first, linear((5, 5, 3), 3))
    with pytest.raises(DataError, match="layout='flat'"):
        check_data(data, linear((75,), 3))
    with pytest.raises(DataError, match="not made for this model"):
        check_data(data, linear((80,), 3))
    with pytest.raises(DataError, match=r"does not take rows of shape \(5, 5, 3\)"):
        check_data(data, linear((80,), 3, told=False))
    with pytest.raises(DataError, match=r"range from 0 to 2; the model has 2 classes"):
        check_data(data, linear((5, 5, 3), 2))
    with pytest.raises(DataError, match="1-based"):
        check_data(dataset(np.zeros((2, 75)), [1, 3]), linear((75,), 3))


def test_check_data_by_itself():
    with pytest.raises(DataError, match="NaN or infinite inputs in 1 rows, first in row 1"):
        check_data(dataset([[0.0], [np.nan]], [0, 1]))
    with pytest.raises(DataError, match=r"values 0 to 255, outside its value_range \(0\.0, 1\.0\), in 1 rows, first in row 1"):
        check_data(dataset([[0.0], [255.0]], [0, 1]))
    with pytest.raises(DataError, match="0 inputs and 0 labels"):
        check_data(dataset(np.zeros((0, 2)), []))


def test_accuracy_at_chance_is_a_warning():
    data = dataset(np.zeros((300, 2)), np.arange(300) % 3)
    assert check_data(data, accuracy=0.9) == ()
    (warning,) = check_data(data, accuracy=0.34)
    assert "34.0 %" in warning and "normalisation" in warning and "layout" in warning and "order of the labels" in warning
    # With 95 % of one class, 94 % accuracy says nothing.
    skewed = dataset(np.zeros((200, 2)), np.arange(200) % 20 == 0)
    assert check_data(skewed, accuracy=0.94) and not check_data(skewed, accuracy=1.0)
    with pytest.raises(DataError, match=r"accuracy is 1\.5"):
        check_data(data, accuracy=1.5)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_data("digits", limit=2).x = None
