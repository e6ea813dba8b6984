"""The op table, filled: whoever takes it from here has every op in it."""

from . import _onnx_ops_conv as conv
from . import _onnx_ops_elementwise as elementwise
from . import _onnx_ops_linear as linear
from . import _onnx_ops_ml as ml
from . import _onnx_ops_norm as norm
from . import _onnx_ops_reduce as reduce
from . import _onnx_ops_resize as resize
from . import _onnx_ops_shape as shape
from ._onnx_program import TABLE

__all__ = ["TABLE", "conv", "elementwise", "linear", "ml", "norm", "reduce", "resize", "shape"]
