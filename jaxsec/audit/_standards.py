"""Families of attacks, and their ids in MITRE ATLAS, NIST AI 100-2 and the OWASP machine-learning top ten.

Names and ids were taken from the published sources named below. ATLAS renames and retires techniques, so every id is printed
with the version it was read from, and `RETIRED` says where a retired id went.
"""

import dataclasses
from typing import Any

ATLAS_VERSION = "5.6.0 (2026-05)"
NIST_EDITION = "AI 100-2e2025"
OWASP_EDITION = "2023 v0.3"

# ATLAS 2026.09 retired these; the names are those of 5.6.0.
RETIRED = {"AML.T0019": "AML.T0115.000", "AML.T0058": "AML.T0115.001"}

Ids = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of attacks: key, title, and (id, name) pairs of the three standards; `ai_act` are the words of Article 15(5)."""

    key: str
    title: str
    atlas: Ids
    nist: Ids
    owasp: Ids
    ai_act: str

    def ids(self) -> dict[str, Any]:
        """The ids as the report prints them."""

        def pairs(ids: Ids) -> list[dict[str, str]]:
            return [{"id": i, "name": n} | ({"replaced_by": RETIRED[i]} if i in RETIRED else {}) for i, n in ids]

        return {
            "atlas": pairs(self.atlas),
            "atlas_version": ATLAS_VERSION,
            "nist": pairs(self.nist),
            "nist_edition": NIST_EDITION,
            "owasp": pairs(self.owasp),
            "owasp_edition": OWASP_EDITION,
        }


_EVADE = ("AML.T0015", "Evade AI Model")
_ML01 = (("ML01:2023", "Input Manipulation Attack"),)
_ML02 = ("ML02:2023", "Data Poisoning Attack")
_ML10 = ("ML10:2023", "Model Poisoning")
_CONFIDENTIALITY = "confidentiality attacks"

FAMILIES: tuple[Family, ...] = (
    Family(
        "evasion-white-box",
        "Evasion, white-box",
        (
            ("AML.T0043", "Craft Adversarial Data"),
            ("AML.T0043.000", "White-Box Optimization"),
            ("AML.T0044", "Full AI Model Access"),
            _EVADE,
            ("AML.T0031", "Erode AI Model Integrity"),
        ),
        (("NISTAML.022", "Evasion"),),
        _ML01,
        "adversarial examples or model evasion",
    ),
    Family(
        "evasion-black-box",
        "Evasion, black-box queries",
        (
            ("AML.T0043.001", "Black-Box Optimization"),
            ("AML.T0040", "AI Model Inference API Access"),
            ("AML.T0042", "Verify Attack"),
            _EVADE,
        ),
        (("NISTAML.025", "Black-box Evasion"),),
        _ML01,
        "adversarial examples or model evasion",
    ),
    Family(
        "evasion-transfer",
        "Evasion, transfer from a proxy model",
        (("AML.T0043.002", "Black-Box Transfer"), ("AML.T0005", "Create Proxy AI Model")),
        (("NISTAML.025", "Black-box Evasion"),),
        _ML01,
        "adversarial examples or model evasion",
    ),
    Family(
        "evasion-physical",
        "Evasion, physical objects and patches",
        (("AML.T0041", "Physical Environment Access"), ("AML.T0043.003", "Manual Modification")),
        (("NISTAML.022", "Evasion"),),
        _ML01,
        "adversarial examples or model evasion",
    ),
    Family(
        "poisoning-data",
        "Poisoning of training data",
        (("AML.T0020", "Poison Training Data"), ("AML.T0059", "Erode Dataset Integrity"), ("AML.T0019", "Publish Poisoned Datasets")),
        (("NISTAML.013", "Data Poisoning"), ("NISTAML.012", "Clean-label Poisoning"), ("NISTAML.024", "Targeted Poisoning")),
        (_ML02, ("ML08:2023", "Model Skewing")),
        "data poisoning",
    ),
    Family(
        "poisoning-backdoor",
        "Backdoors",
        (("AML.T0043.004", "Insert Backdoor Trigger"), ("AML.T0020", "Poison Training Data"), ("AML.T0018.000", "Poison AI Model")),
        (("NISTAML.023", "Backdoor Poisoning"), ("NISTAML.021", "Clean-label Backdoor")),
        (_ML02, _ML10),
        "data poisoning or model poisoning",
    ),
    Family(
        "poisoning-model",
        "Poisoning of the model itself",
        (("AML.T0018", "Manipulate AI Model"), ("AML.T0018.000", "Poison AI Model"), ("AML.T0018.001", "Modify AI Model Architecture")),
        (("NISTAML.011", "Model Poisoning (availability)"), ("NISTAML.026", "Model Poisoning (integrity)")),
        (_ML10, ("ML07:2023", "Transfer Learning Attack")),
        "model poisoning",
    ),
    Family(
        "extraction",
        "Model extraction",
        (
            ("AML.T0024.002", "Extract AI Model"),
            ("AML.T0005.001", "Train Proxy via Replication"),
            ("AML.T0048.004", "AI Intellectual Property Theft"),
        ),
        (("NISTAML.031", "Model Extraction"),),
        (("ML05:2023", "Model Theft"),),
        _CONFIDENTIALITY,
    ),
    Family(
        "inversion",
        "Model inversion and reconstruction",
        (("AML.T0024.001", "Invert AI Model"),),
        (("NISTAML.032", "Reconstruction"),),
        (("ML03:2023", "Model Inversion Attack"),),
        _CONFIDENTIALITY,
    ),
    Family(
        "membership",
        "Membership inference",
        (("AML.T0024.000", "Infer Training Data Membership"),),
        (("NISTAML.033", "Membership Inference"),),
        (("ML04:2023", "Membership Inference Attack"),),
        _CONFIDENTIALITY,
    ),
    Family(
        "property",
        "Property inference",
        (("AML.T0024", "Exfiltration via AI Inference API"),),
        (("NISTAML.034", "Property Inference"),),
        (),
        _CONFIDENTIALITY,
    ),
    Family(
        "dos-volume",
        "Denial of service by volume",
        (
            ("AML.T0029", "Denial of AI Service"),
            ("AML.T0034.000", "Excessive Queries"),
            ("AML.T0046", "Spamming AI System with Chaff Data"),
        ),
        (("NISTAML.01", "Availability Violations"),),
        (),
        "system vulnerabilities",
    ),
    Family(
        "dos-sponge",
        "Denial of service by costly inputs",
        (("AML.T0034.001", "Resource-Intensive Queries"), ("AML.T0029", "Denial of AI Service")),
        (("NISTAML.014", "Energy-latency"),),
        (),
        "system vulnerabilities",
    ),
    Family(
        "supply-chain",
        "Malicious artefacts in the supply chain",
        (
            ("AML.T0010", "AI Supply Chain Compromise"),
            ("AML.T0010.003", "Model"),
            ("AML.T0011.000", "Unsafe AI Artifacts"),
            ("AML.T0018.002", "Embed Malware"),
            ("AML.T0058", "Publish Poisoned Models"),
        ),
        (("NISTAML.05", "Supply Chain"), ("NISTAML.051", "Model Poisoning")),
        (("ML06:2023", "AI Supply Chain Attacks"),),
        "model poisoning",
    ),
    Family(
        "unauthorised-access",
        "Unauthorised access",
        (
            ("AML.T0012", "Valid Accounts"),
            ("AML.T0055", "Unsecured Credentials"),
            ("AML.T0049", "Exploit Public-Facing Application"),
            ("AML.T0035", "AI Artifact Collection"),
        ),
        (),
        (("ML09:2023", "Output Integrity Attack"),),
        "system vulnerabilities",
    ),
)

# Findings about the evaluation (clean accuracy, the noise control, what an attack says of itself) are no attacks, so they have no ids.
_EVALUATION = Family("evaluation", "The evaluation itself", (), (), (), "")
_BY_KEY = {f.key: f for f in (*FAMILIES, _EVALUATION)}


def family_of(key: str) -> Family:
    """The family called `key`; `ValueError` names the known ones."""
    if key not in _BY_KEY:
        raise ValueError(f"family is {key!r}; allowed: {', '.join(_BY_KEY)}.")
    return _BY_KEY[key]
