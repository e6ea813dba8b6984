"""Randomized smoothing: noise from compiled kernels, certificates of any classifier by sampling, tests that stop when they know enough."""

from ._patch_ablation import PatchAblation as PatchAblation
from ._certificate import SmoothedCertificate as SmoothedCertificate
from ._certificate import SmoothedVerdict as SmoothedVerdict
from ._confidence import certify_from_counts as certify_from_counts
from ._confidence import lower_bound as lower_bound
from ._confidence import predict_from_counts as predict_from_counts
from ._confidence import radius_table as radius_table
from ._confidence import upper_bound as upper_bound
from ._door import certify_smoothed as certify_smoothed
from ._exhaustive import ExhaustiveSmoothing as ExhaustiveSmoothing
from ._method import SequentialSmoothing as SequentialSmoothing
from ._method import Smoothing as Smoothing
from ._method import SmoothingMethod as SmoothingMethod
from ._noise import noise as noise
from ._noise import noisy_batch as noisy_batch
from ._noise import vote as vote
from ._splitting import Splitting as Splitting
from ._splitting import SplittingNoise as SplittingNoise
