"""Certificates: which inputs no adversary in the threat set can turn, and complete answers to properties of networks."""

from ._verify import Verification as Verification
from ._verify import verify as verify
