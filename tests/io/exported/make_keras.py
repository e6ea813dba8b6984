"""Writes `keras_*.onnx`, what Keras' own exporters make of five small networks, and `keras.npz`, Keras' answers on four rows.

Run by hand, once per backend, because each has an exporter of its own (TensorFlow's is tf2onnx, torch's is torch.onnx):
`pip install keras==3.15.1 tensorflow-cpu==2.21.0 tf2onnx==1.17.0; KERAS_BACKEND=tensorflow python tests/io/exported/make_keras.py`
`pip install keras==3.15.1 torch==2.13.0 onnxscript==0.7.2; KERAS_BACKEND=torch python tests/io/exported/make_keras.py`.
Left out: torch's exporter does not take Keras' attention, tf2onnx writes an operator `Erfc` that ONNX lacks for the exact GELU.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers as L

HERE = Path(__file__).parent


def mlp() -> keras.Model:
    rows = [L.Dense(16, activation="tanh"), L.BatchNormalization(), L.Dropout(0.3), L.Dense(5, activation="softmax")]
    return keras.Sequential([keras.Input((20,)), *rows])


def cnn() -> keras.Model:
    conv = [L.Conv2D(6, 3, strides=2, padding="same", use_bias=False), L.BatchNormalization(), L.ReLU(), L.MaxPooling2D(2)]
    return keras.Sequential([keras.Input((14, 14, 3)), *conv, L.Flatten(), L.Dense(10, activation="softmax")])


def resnet() -> keras.Model:
    x = image = keras.Input((16, 16, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x)))
    y = L.Conv2D(8, 3, strides=2)(L.ZeroPadding2D(1)(x))
    x = L.ReLU()(L.Add()([L.BatchNormalization()(y), L.Conv2D(8, 1, strides=2)(x)]))
    x = L.DepthwiseConv2D(3, padding="same")(L.AveragePooling2D(2, padding="same")(x))
    return keras.Model(image, L.Dense(10)(L.GlobalAveragePooling2D()(x)))


def attention() -> keras.Model:
    words = keras.Input((12, 8))
    x = L.LayerNormalization()(words + L.MultiHeadAttention(2, 4, flash_attention=False)(words, words))
    y = L.Dense(8)(L.Dense(16, activation=lambda v: keras.activations.gelu(v, approximate=True))(x))
    x = L.GlobalAveragePooling1D()(L.LayerNormalization()(x + y))
    return keras.Model(words, L.Dense(4, activation="softmax")(x))


def mobile() -> keras.Model:
    image = keras.Input((16, 16, 3))
    x = L.ReLU(max_value=6)(L.SeparableConv2D(8, 3, padding="same")(image))
    x = L.Multiply()([x, L.Conv2D(8, 1, activation="sigmoid")(L.GlobalMaxPooling2D(keepdims=True)(x))])
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="silu")(L.UpSampling2D(2)(x))
    return keras.Model(image, L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(L.Cropping2D(1)(x))))


def main() -> None:
    r = np.random.default_rng(0)
    answers = dict(np.load(HERE / "keras.npz")) if (HERE / "keras.npz").exists() else {}
    backend = keras.backend.backend()
    for build in (mlp, cnn, resnet, attention, mobile):
        if (backend, build.__name__) == ("torch", "attention"):
            continue
        net, name = build(), f"keras_{backend}_{build.__name__}"
        for weight in net.weights:
            drawn = 0.3 * r.normal(size=weight.shape)
            weight.assign(np.abs(drawn) + 0.2 if "variance" in weight.path else drawn)
        x = r.normal(size=(4, *net.input_shape[1:])).astype(np.float32)
        answers[f"{name}.x"], answers[f"{name}.y"] = x, np.asarray(keras.ops.convert_to_numpy(net(x)))
        net.export(str(HERE / f"{name}.onnx"), format="onnx", verbose=False)
    np.savez_compressed(HERE / "keras.npz", **answers)


if __name__ == "__main__":
    main()
