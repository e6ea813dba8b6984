"""Native operations and the pure-JAX twins that specify them.

A twin has the signature of its native operation and is its specification: native random bits must be the same bits, native
sums of products the same up to their order of summation. The native one is chosen for the CPU, and for noise on CUDA devices too,
while the program is lowered; elsewhere the twin runs, and so it does where the package was installed without compiled code or
where `JAXSEC_NATIVE=0` is set. `status()` and `cuda_status()` say which holds and why.
"""

from ._bits import random_bits as random_bits
from ._boundary import Move as Move
from ._boundary import native_move as native_move
from ._conv import conv2d as conv2d
from ._conv import conv2d_twin as conv2d_twin
from ._conv import dense as dense
from ._discrete import alias_table as alias_table
from ._discrete import deviation as deviation
from ._load import available as available
from ._load import cpu_devices as cpu_devices
from ._load import cuda_status as cuda_status
from ._load import on_one_cpu as on_one_cpu
from ._load import status as status
from ._local import Images as Images
from ._local import Stage as Stage
from ._local import local_chain as local_chain
from ._local import reach as reach
from ._local import settle as settle
from ._noise import DISCRETE as DISCRETE
from ._noise import DISTRIBUTIONS as DISTRIBUTIONS
from ._noise import NoisePlan as NoisePlan
from ._noise import as_float as as_float
from ._noise import noised as noised
from ._noise import plan_of as plan_of
from ._noise import twin as twin
from ._offset import advance as advance
from ._offset import as_offset as as_offset
from ._offset import key_words as key_words
from ._offset import sample_offset as sample_offset
from ._philox import philox4x32 as philox4x32
from ._philox import philox_bits as philox_bits
