"""What comes in: ONNX models of any framework, labelled data in the usual files, and VNNLIB properties; results of the competition go out.

`load` makes a `Model`, `load_data` a `Dataset`; `check_data` asks whether the two belong together. `load_vnnlib` makes a `Property`, the
unsafe set of a network. Nothing that is read is ever executed.
"""

from ._data import Dataset as Dataset
from ._data import load_data as load_data
from ._data import train_test as train_test
from ._data_check import check_data as check_data
from ._data_error import DataError as DataError
from ._onnx import load as load
from ._onnx_new import NETWORKS as NETWORKS
from ._onnx_new import new_network as new_network
from ._onnx_save import save as save
from ._vnnlib import load_vnnlib as load_vnnlib
from ._vnnlib_instances import Instance as Instance
from ._vnnlib_instances import load_instances as load_instances
from ._vnnlib_property import Case as Case
from ._vnnlib_property import Clause as Clause
from ._vnnlib_property import Property as Property
from ._vnnlib_result import read_result as read_result
from ._vnnlib_result import write_result as write_result
from ._vnnlib_source import VNNLIBError as VNNLIBError
