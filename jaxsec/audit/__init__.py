"""Audits: probes measure, findings judge, one JSON report records it all, and HTML, Markdown and SARIF are views of that JSON.

`audit` runs a `Plan` against a model and its data; `Report.save` writes the folder that `jaxsec report` can render again.
"""

from ._finding import Finding as Finding
from ._plan import Plan as Plan
from ._plan import read_plan as read_plan
from ._report import Report as Report
from ._run import audit as audit
