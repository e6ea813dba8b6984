"""What comes in: ONNX models of any framework."""

from .onnx import load as load
