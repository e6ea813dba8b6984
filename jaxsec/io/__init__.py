"""What comes in: ONNX models of any framework, and labelled data in the usual files.

`load` makes a `Model`, `load_data` a `Dataset`; `check_data` asks whether the two belong together. Nothing that is read is ever executed.
"""

from ._data import Dataset as Dataset
from ._data import load_data as load_data
from ._data import train_test as train_test
from ._data_check import check_data as check_data
from ._data_error import DataError as DataError
from ._onnx import load as load
