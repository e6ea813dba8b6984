"""Certificates: which inputs no adversary in the threat set can turn, and answers to properties of networks."""

from ._certificate import Certificate as Certificate
from ._certificate import Verdict as Verdict
from ._door import certify as certify
from ._rows import margins as margins
from ._verify import Verification as Verification
from ._verify import verify as verify
