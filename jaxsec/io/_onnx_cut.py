"""Recognises the probabilities at the end of a network and goes back to the logits, which attacks and certificates need."""

import dataclasses
import math

import numpy as np

from ._onnx_fold import Folded
from ._onnx_ops_ml import ML
from ._onnx_program import Step

_PASSING = ("Identity", "Cast", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def cut(folded: Folded) -> tuple[Folded, tuple[str, ...]]:
    """The program without its final Softmax, LogSoftmax or Sigmoid, and sentences that say what was done.

    Only exact equivalents: the softmax of the new output is what the file returned as probabilities.
    """
    by_output = {o: step for step in folded.steps for o in step.outputs}
    last, below = _last(folded.output, by_output, folded)
    if last is None:
        return folded, ()
    normalised = last.domain == ML and last.op == "Normalizer" and last.attr("norm") == "L1"
    if normalised:
        last, below = _last(_source(last), by_output, folded)
        if last is None:
            return folded, ()
    classes = math.prod(folded.shapes[folded.output])
    if last.op in ("Softmax", "LogSoftmax") and _over_classes(last, folded.shapes[below]):
        return _ending(folded, [], _source(last)), (f"final {last.op} removed: the model returns logits",)
    if last.op == "Sigmoid" and classes == 1:
        note = "final Sigmoid over one score z removed: the model returns the two logits [0, z], class 1 is 'positive'"
        return _ending(folded, [_step("BinaryLogits", _source(last), below)], below), (note,)
    if last.op == "Sigmoid" and normalised:
        note = "final Sigmoid and normalisation removed: the model returns the logarithms of the sigmoids, which are exact logits"
        return _ending(folded, [_step("LogSigmoid", _source(last), below)], below), (note,)
    if last.op == "Concat" and (score := _pair(last, by_output)) is not None:
        note = "final [1 - sigmoid(z), sigmoid(z)] removed: the model returns the two logits [0, z]"
        return _ending(folded, [_step("BinaryLogits", score, below)], below), (note,)
    if last.op == "LinearClassifier" and last.domain == ML:
        return _linear_classifier(folded, last, below, classes, normalised)
    if last.op == "Sigmoid":
        return folded, (
            f"final Sigmoid over {classes} scores kept: they are no softmax probabilities, and their order is that of the logits",
        )
    return folded, ()


def _linear_classifier(folded: Folded, last: Step, below: int, classes: int, normalised: bool) -> tuple[Folded, tuple[str, ...]]:
    after = last.attr("post_transform", "NONE")
    plain = dataclasses.replace(last, attrs={**last.attrs, "post_transform": "NONE"})
    if after == "SOFTMAX":
        return _ending(folded, [plain], below, last), ("final Softmax of LinearClassifier removed: the model returns logits",)
    if after == "LOGISTIC" and classes == 2 and last.attr("jaxsec_complementary"):
        # The scores are [-z, z]; halved, their softmax is [1 - sigmoid(z), sigmoid(z)], and the program stays linear.
        halved = dataclasses.replace(plain, attrs={**plain.attrs, "post_transform": "HALF"})
        return _ending(folded, [halved], below, last), (
            "final Sigmoid of LinearClassifier removed: the model returns the logits [-z/2, z/2]",
        )
    if after == "LOGISTIC" and normalised:
        logs = dataclasses.replace(plain, attrs={**plain.attrs, "post_transform": "LOG_SIGMOID"})
        note = (
            "final Sigmoid and normalisation of LinearClassifier removed: "
            "the model returns the logarithms of the sigmoids, which are exact logits"
        )
        return _ending(folded, [logs], below, last), (note,)
    return folded, ()


def _source(step: Step) -> int:
    (first, *_) = step.inputs
    assert isinstance(first, int)  # a step without a computed input would have been folded
    return first


def _last(value: int, by_output: dict[int, Step], folded: Folded) -> tuple[Step | None, int]:
    """The step behind `value` and the value it makes, seen through steps that keep the numbers and their order."""
    step = by_output.get(value)
    while step is not None and step.domain == "" and step.op in _PASSING:
        if step.op == "Cast" and step.attr("to") not in (1, 10, 11, 16):
            return step, value
        value = _source(step)
        step = by_output.get(value)
    return step, value


def _over_classes(step: Step, shape: tuple[int, ...]) -> bool:
    """Whether the normalised axes are the only ones longer than 1."""
    axis = int(step.attr("axis", -1 if step.opset >= 13 else 1)) % len(shape)
    rest = shape[:axis] + (shape[axis + 1 :] if step.opset >= 13 else ())
    return math.prod(rest) == 1


def _pair(step: Step, by_output: dict[int, Step]) -> int | None:
    """z of `Concat(1 - sigmoid(z), sigmoid(z))`, the way binary perceptrons of scikit-learn are written."""
    if len(step.inputs) != 2 or not all(isinstance(i, int) for i in step.inputs):
        return None
    first, second = (by_output.get(i) for i in step.inputs if isinstance(i, int))
    if first is None or second is None or first.op != "Sub" or second.op != "Sigmoid" or first.inputs[1] != step.inputs[1]:
        return None
    one = first.inputs[0]
    return _source(second) if isinstance(one, np.ndarray) and one.size == 1 and float(one.reshape(())) == 1.0 else None


def _step(op: str, source: int, output: int) -> Step:
    return Step(op, "jaxsec", 1, "", (source,), (output,), {})


def _ending(folded: Folded, tail: list[Step], output: int, instead: Step | None = None) -> Folded:
    """The program that ends in `output`: `tail` replaces whatever made the same values, the rest is what it needs."""
    made = {o for step in tail for o in step.outputs}
    steps = [s for s in folded.steps if s is not instead and not made.intersection(s.outputs)] + tail
    return trimmed(dataclasses.replace(folded, steps=steps, output=output))


def trimmed(folded: Folded) -> Folded:
    """Without the steps and weights that the output does not need."""
    wanted, kept = {folded.output}, []
    for step in reversed(folded.steps):
        if wanted.intersection(step.outputs):
            kept.append(step)
            wanted.update(i for i in step.inputs if isinstance(i, int))
    params = {name: n for name, n in folded.params.items() if n in wanted}
    return dataclasses.replace(folded, steps=kept[::-1], params=params)
