"""What comes in: ONNX models of any framework, and labelled data in the usual files.

`load` makes a `Model`, `load_data` a `Dataset`; `check_data` asks whether the two belong together. Nothing that is read is ever executed.
"""

from ._data_check import check_data as check_data
from ._data_error import DataError as DataError
from .data import Dataset as Dataset
from .data import load_data as load_data
from .data import train_test as train_test
from .onnx import load as load
