"""Whole files: published networks, the exporters of torch, Keras and scikit-learn, and the promises of `load`."""

import gzip
import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper
from onnx_kit import RNG, model_of, relative, run_rows, write

import jaxsec.io

ACAS_KEPT = ("1_1_", "3_7_", "5_9_")  # 45 files with one graph: three suffice to compare, all are loaded


def test_vnncomp_nets(shared_data):
    """Every published network: our batch of 3 against onnxruntime row by row. ACAS nets share one program."""
    files = sorted((shared_data / "vnncomp").glob("*/onnx/*.onnx.gz")) + sorted((shared_data / "vnncomp").glob("verivital_2021/*.onnx.gz"))
    assert len(files) > 50
    programs, worst = set(), {}
    acas = jax.jit(lambda model, x: model(x))
    for file in files:
        model = jaxsec.io.load(file, keep_softmax=True)
        if "ACASXU" in file.name:
            programs.add(model.apply)
            if not any(k in file.name for k in ACAS_KEPT):
                continue
        x = RNG.uniform(-0.5, 0.5, (3, *model.info.input_shape)).astype(np.float32)
        got = acas(model, x)
        assert got.shape == (3, model.info.n_classes)
        worst[file.name] = relative(got, run_rows(file, x))
    assert len(programs) == 1
    assert max(worst.values()) < 1e-4, worst


def torch_nets():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.b1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            self.c2, self.b2 = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
            self.max, self.mean, self.head = nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True), nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.b1(self.c1(x)))
            x = self.mean(self.max(torch.relu(x + self.b2(self.c2(x)))))
            return torch.softmax(self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)), 1)

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.token = nn.Linear(6, 8), nn.Parameter(torch.randn(1, 1, 8))
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", dropout=0.0)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1)
            return self.head(self.block(x)[:, 0])

    class View(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3, 2), nn.Linear(36, 5)

        def forward(self, x):
            return nn.functional.gelu(self.head(torch.tanh(self.conv(x)).view(x.size(0), -1)), approximate="tanh")

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.more = nn.ConvTranspose2d(2, 3, 4, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")
            self.group, self.each, self.head = nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.each(self.group(self.more(nn.functional.elu(self.up(x))))).amax((2, 3)))

    mlp = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 3), nn.LogSoftmax(1))
    torch.manual_seed(0)
    return {
        "residual": (Residual(), (3, 14, 14)),
        "transformer": (Transformer(), (5, 6)),
        "view": (View(), (1, 8, 8)),
        "decoder": (Decoder(), (2, 4, 5)),
        "mlp": (mlp, (3, 4)),
    }


@pytest.mark.torch
@pytest.mark.parametrize("exporter", ["legacy", "legacy-free", "dynamo", "dynamo-free"])
def test_torch_exports(tmp_path, exporter):
    """Both exporters of torch, with a batch of 1 and with a free one; BatchNorm is folded here and kept in the next test."""
    torch = pytest.importorskip("torch")
    if "dynamo" in exporter:
        pytest.importorskip("onnxscript")
    for name, (net, row) in torch_nets().items():
        if "dynamo" in exporter and name in ("view", "mlp"):
            continue  # a second per export, and nothing new in them
        net.eval()
        file = tmp_path / f"{name}.onnx"
        free = "free" in exporter
        options = {"dynamo": "dynamo" in exporter, "input_names": ["x"], "output_names": ["out"]}
        if options["dynamo"]:
            options |= {"dynamic_shapes": ({0: torch.export.Dim("B")},) if free else None, "verbose": False, "external_data": False}
        elif free:
            options["dynamic_axes"] = {"x": {0: "B"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporters warn about themselves
            torch.onnx.export(net, (torch.randn(2 if free else 1, *row),), str(file), **options)
        model = jaxsec.io.load(file, keep_softmax=True)
        assert model.info.input_shape == row
        x = RNG.normal(size=(3, *row)).astype(np.float32)
        with torch.no_grad():
            want = net(torch.from_numpy(x)).numpy()
        assert relative(jax.jit(model.apply)(model.params, x), want) < 1e-4, name
        if exporter == "legacy" and name == "residual":  # pools and shortcuts differentiate as torch's do
            leaf = torch.from_numpy(x).requires_grad_()
            net(leaf).square().sum().backward()
            slope = jax.jit(jax.grad(lambda x, m=model: jnp.square(m(x)).sum()))(x)
            assert leaf.grad is not None and relative(slope, leaf.grad.numpy()) < 1e-4
        assert any("oftmax removed" in n for n in jaxsec.io.load(file).info.notes) == (name in ("residual", "mlp"))


@pytest.mark.torch
def test_torch_batch_norm_unfolded_and_fixed_batch(tmp_path):
    """BatchNorm as an op of its own, and a file written with a fixed batch of 4."""
    torch = pytest.importorskip("torch")
    net, row = torch_nets()["residual"]
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.randn(4, *row),), str(tmp_path / "n.onnx"), dynamo=False, do_constant_folding=False,
                          training=torch.onnx.TrainingMode.PRESERVE)  # fmt: skip
    model = jaxsec.io.load(tmp_path / "n.onnx")
    assert any(s.op == "BatchNormalization" for s in model.apply.steps)
    assert any("fixed batch of 4" in n for n in model.info.notes)
    x = RNG.normal(size=(3, *row)).astype(np.float32)
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(jax.nn.softmax(jax.jit(model.apply)(model.params, x)), want, atol=1e-5)


EXPORTED = pathlib.Path(__file__).parent / "exported"  # how they were made: make_keras.py, beside them
KERAS = sorted(p.stem for p in EXPORTED.glob("keras_*.onnx"))


def test_keras_files_are_there():
    assert len(KERAS) == 9


@pytest.mark.parametrize("name", KERAS)
def test_keras_exports(name):
    """Files of Keras' own exporters: the answers of Keras and of onnxruntime, and a gradient that is a slope of the answers."""
    answers = np.load(EXPORTED / "keras.npz")
    x, want = answers[f"{name}.x"], answers[f"{name}.y"]
    file = EXPORTED / f"{name}.onnx"
    whole = jax.jit(jaxsec.io.load(file, keep_softmax=True))(x)
    assert relative(whole, want) < 1e-4 and relative(whole, run_rows(file, x)) < 1e-4
    model = jaxsec.io.load(file)
    logits = jax.jit(model)(x)
    if cut := [n for n in model.info.notes if n == "final Softmax removed: the model returns logits"]:
        np.testing.assert_allclose(jax.nn.softmax(logits), want, atol=1e-5)
    assert bool(cut) == name.endswith(("mlp", "cnn", "attention"))
    slope = np.asarray(jax.jit(jax.grad(lambda v: jnp.sum(model(v)[:, 0])))(x))
    step = RNG.normal(size=x.shape)
    with jax.enable_x64(True):  # where steps are small enough to meet no kink
        wide = jax.tree.map(lambda w: w.astype(jnp.float64) if jnp.issubdtype(w.dtype, jnp.floating) else w, model)
        run = jax.jit(lambda v: wide(v)[:, 0])
        rose = np.asarray(run(x + 1e-6 * step) - run(x - 1e-6 * step)) / 2e-6
    rises = np.sum(slope * step, axis=tuple(range(1, x.ndim)))
    np.testing.assert_allclose(rose, rises, atol=1e-4 * np.abs(rises).max())


def test_tf2onnx_pattern(tmp_path):
    """Channels-last input, transposes around convolutions, mean over pixels, a Softmax head: what Keras models look like."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "k", "b"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID"),
        node("Transpose", ["m"], ["u"], perm=[0, 2, 3, 1]),
        node("ReduceMean", ["u"], ["g"], axes=[1, 2], keepdims=0),
        node("MatMul", ["g", "w"], ["d"]),
        node("Add", ["d", "v"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=-1),
        node("Identity", ["p"], ["y"]),
    ]
    arrays = {"k": RNG.normal(size=(4, 3, 3, 3)), "b": RNG.normal(size=4), "w": RNG.normal(size=(4, 5)), "v": RNG.normal(size=5)}
    file = write(tmp_path / "keras.onnx", model_of(nodes, ("unk__1", 9, 9, 3), ("unk__2", 5), arrays, 13))
    model = jaxsec.io.load(file)
    x = RNG.normal(size=(3, 9, 9, 3)).astype(np.float32)
    assert model.info.input_shape == (9, 9, 3)
    assert model.info.notes == ("final Softmax removed: the model returns logits",)
    np.testing.assert_allclose(jax.nn.softmax(jax.jit(model.apply)(model.params, x)), run_rows(file, x), atol=1e-5)
    # No axes are left behind by the batch: the program is the network's own convolution and pool, as core's rewrites expect.
    text = str(jax.make_jaxpr(model.apply)(model.params, x))
    assert "conv_general_dilated" in text and "reduce_window_max" in text
    assert "f32[3,4,5,5]" in text and "f32[3,1,4" not in text and "f32[3,1,3" not in text


def sklearn_models():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    x, y = x[:300].astype(np.float32), y[:300]
    two = y < 2
    many = [
        make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=5, random_state=0)),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5)),
    ]
    pairs = [MLPClassifier((8,), max_iter=5, activation="tanh", random_state=0), LogisticRegression(max_iter=5)]
    return [(m, x, y) for m in many] + [(m, x[two], y[two]) for m in pairs]


@pytest.mark.parametrize("zipmap", [True, False])
def test_sklearn_exports(tmp_path, zipmap):
    """Labels are dropped, probabilities are cut back to logits whose softmax they are, with and without a ZipMap."""
    skl2onnx = pytest.importorskip("skl2onnx")
    for estimator, x, y in sklearn_models():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few iterations on purpose
            estimator.fit(x, y)
            exported = skl2onnx.to_onnx(estimator, x[:1], options=None if zipmap else {"zipmap": False})
        model = jaxsec.io.load(write(tmp_path / "s.onnx", exported))
        assert any("the model returns" in n and "logits" in n for n in model.info.notes), model.info.notes
        np.testing.assert_allclose(jax.nn.softmax(model(x[:5])), estimator.predict_proba(x[:5]), atol=1e-5)
        assert jaxsec.io.load(tmp_path / "s.onnx", keep_softmax=True)(x[:5]).sum() == pytest.approx(5, abs=1e-4)


def dense(activation=None, opset=17, k=3, shape=(1, 4), **attrs):
    last = "y" if activation is None else "z"
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "u"], [last], name="head"),
    ]
    if activation:
        nodes.append(helper.make_node(activation, ["z"], ["y"], name="tail", **attrs))
    arrays = {"w": RNG.normal(size=(4, 6)), "b": RNG.normal(size=6), "u": RNG.normal(size=(6, k))}
    return model_of(nodes, shape, (1, k), arrays, opset)


@pytest.mark.parametrize(("activation", "k", "opset"), [("Softmax", 3, 17), ("Softmax", 3, 8), ("LogSoftmax", 3, 17), ("Sigmoid", 1, 17)])
def test_probabilities_are_cut_to_logits(tmp_path, activation, k, opset):
    file = write(tmp_path / "m.onnx", dense(activation, opset, k))
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    model, kept = jaxsec.io.load(file), jaxsec.io.load(file, keep_softmax=True)
    assert f"final {activation}" in model.info.notes[0] and kept.info.notes == ()
    probabilities = jax.nn.softmax(model(x))
    want = run_rows(file, x)
    np.testing.assert_allclose(kept(x), want, atol=1e-6)
    want = {"Softmax": want, "LogSoftmax": np.exp(want), "Sigmoid": np.concatenate([1 - want, want], 1)}[activation]
    np.testing.assert_allclose(probabilities, want, atol=1e-6)
    assert model.info.n_classes == max(k, 2)


def test_many_sigmoids_are_kept_and_said(tmp_path):
    model = jaxsec.io.load(write(tmp_path / "m.onnx", dense("Sigmoid")))
    assert "kept" in model.info.notes[0]
    assert model(np.zeros((1, 4))).max() < 1


def test_no_retrace_and_gradients(tmp_path):
    """Loading twice, or loading other weights, shares the program; gradients to inputs and weights are those of finite differences."""
    first, second = dense(), dense()
    a, b = jaxsec.io.load(write(tmp_path / "a.onnx", first)), jaxsec.io.load(write(tmp_path / "b.onnx", second))
    again = jaxsec.io.load(tmp_path / "a.onnx")
    traces = []

    @jax.jit
    def loss(model, x):
        traces.append(1)
        return jnp.sum(jnp.sin(model(x)))

    x = RNG.normal(size=(2, 4)).astype(np.float32)
    assert not np.array_equal(a.params["w"], b.params["w"])
    values = [loss(m, x) for m in (a, again, b.replace(info=a.info))]
    assert len(traces) == 1 and values[0] == values[1] != values[2]
    with jax.enable_x64(True):
        wide = a.replace(params={k: jnp.asarray(v, jnp.float64) for k, v in a.params.items()})
        value = jax.jit(lambda model, x: jnp.sum(jnp.sin(model(x))))
        x64 = jnp.asarray(x, jnp.float64)
        g_model, g_x = jax.grad(value, argnums=(0, 1))(wide, x64)
        h, w = 1e-5, wide.params["w"]
        step = jnp.zeros_like(x64).at[1, 2].set(h)
        numeric = float((value(wide, x64 + step) - value(wide, x64 - step)) / (2 * h))
        assert float(g_x[1, 2]) == pytest.approx(numeric, rel=1e-6)
        up, down = (wide.replace(params={**wide.params, "w": w.at[3, 1].add(s)}) for s in (h, -h))
        numeric = float((value(up, x64) - value(down, x64)) / (2 * h))
        assert float(g_model.params["w"][3, 1]) == pytest.approx(numeric, rel=1e-6)


def test_rows_do_not_depend_on_the_batch(tmp_path):
    model = jaxsec.io.load(write(tmp_path / "m.onnx", dense()))
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    whole = model(x)
    # sums round by the size of their terms, which is 1, and not by their own
    np.testing.assert_allclose(whole[3:4], model(x[3:4]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(whole, jax.vmap(lambda r: model(r[None])[0])(x), rtol=1e-6, atol=1e-6)
    assert model(x[:0]).shape == (0, 3)


def test_input_without_batch_axis_and_open_shapes(tmp_path):
    node = helper.make_node
    vector = model_of([node("MatMul", ["x", "w"], ["y"])], (4,), (3,), {"w": RNG.normal(size=(4, 3))})
    file = write(tmp_path / "v.onnx", vector)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    model = jaxsec.io.load(file)
    assert model.info.input_shape == (4,)
    np.testing.assert_allclose(model(x), run_rows(file, x), rtol=1e-5)
    # A sequence [7, 4] whose first axis is time: said with input_shape.
    sequence = model_of(
        [node("MatMul", ["x", "w"], ["m"]), node("ReduceMax", ["m"], ["y"], axes=[0], keepdims=0)],
        (7, 4),
        (3,),
        {"w": RNG.normal(size=(4, 3))},
    )
    file = write(tmp_path / "s.onnx", sequence)
    x = RNG.normal(size=(2, 7, 4)).astype(np.float32)
    np.testing.assert_allclose(jaxsec.io.load(file, input_shape=(7, 4))(x), run_rows(file, x), rtol=1e-5)
    opened = write(
        tmp_path / "o.onnx",
        model_of(
            [node("Flatten", ["x"], ["f"]), node("MatMul", ["f", "w"], ["y"])], ("B", "H", 2), ("B", 3), {"w": RNG.normal(size=(4, 3))}
        ),
    )
    with pytest.raises(ValueError, match=r"leaves the input 'x' open.*pass input_shape"):
        jaxsec.io.load(opened)
    with pytest.raises(ValueError, match=r"input_shape \(2, 3\) does not fit"):
        jaxsec.io.load(opened, input_shape=(2, 3))
    assert jaxsec.io.load(opened, input_shape=(2, 2))(np.zeros((3, 2, 2))).shape == (3, 3)
    with pytest.raises(ValueError, match=r"takes rows of shape \(4,\), got a batch of shape \(2, 5\)"):
        model(np.zeros((2, 5)))


def test_half_precision_weights_and_token_inputs(tmp_path):
    node = helper.make_node
    half = model_of(
        [node("Cast", ["h"], ["w"], to=1), node("MatMul", ["x", "w"], ["y"])], (1, 4), (1, 3), {"h": np.eye(4, 3, dtype=np.float16)}
    )
    model = jaxsec.io.load(write(tmp_path / "h.onnx", half))
    assert model.params["h"].dtype == jnp.float32
    np.testing.assert_array_equal(model(np.ones((2, 4))), np.ones((2, 3)))
    nodes = [
        node("Gather", ["table", "x"], ["e"], axis=0),
        node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    arrays = {"table": RNG.normal(size=(11, 6)), "w": RNG.normal(size=(6, 2))}
    file = write(tmp_path / "t.onnx", model_of(nodes, ("B", 5), ("B", 2), arrays, kind=TensorProto.INT64))
    tokens = RNG.integers(0, 11, (3, 5))
    np.testing.assert_allclose(jaxsec.io.load(file)(tokens.astype(np.int32)), run_rows(file, tokens), rtol=1e-5)


def test_weights_and_literals(tmp_path):
    """Arrays are parameters, scalars belong to the program, gzip is unpacked, the stem is the name."""
    node = helper.make_node
    nodes = [
        node("Constant", [], ["half"], value_float=0.5),
        node("Mul", ["x", "half"], ["s"]),
        node("Add", ["s", "b"], ["a"]),
        node("Pow", ["a", "two"], ["y"]),
    ]
    model = model_of(nodes, (1, 3), (1, 3), {"b": np.arange(3.0), "two": np.float32(2), "unused": np.ones(3)})
    file = tmp_path / "tiny.onnx.gz"
    file.write_bytes(gzip.compress(model.SerializeToString()))
    loaded = jaxsec.io.load(file)
    assert list(loaded.params) == ["b"] and loaded.info.name == "tiny" and loaded.info.source == "onnx"
    np.testing.assert_allclose(loaded(np.ones((1, 3))), [[0.25, 2.25, 6.25]])
    # The derivative of a square exists where its base is negative or zero.
    assert np.isfinite(jax.grad(lambda x: loaded(x).sum())(-jnp.ones((1, 3)))).all()
