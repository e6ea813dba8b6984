"""The report as one HTML file: no script, no request, opens from disk; a pure view of the report's JSON."""

import base64
import io
from typing import Any

import numpy as np

from ._charts import charts_of
from ._examples import FEATURES, decode
from ._sandwich_text import sandwich_shares, skipped_said
from ._smoothed_text import smoothed_shares
from ._text import examples_said, limited_said, noise_said, resumed_said, rows_said, runs_of, valued

LIMIT = 3 * 1024 * 1024


def html_of(data: dict[str, Any]) -> str:
    """The page. Raises `ImportError` with the remedy where Jinja2 or matplotlib is missing, `ValueError` above 3 MB."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup

        charts = charts_of(data)
        examples = [_pictures(e, data) for e in data["examples"]]
    except ImportError as error:
        raise ImportError(f"report.html needs Jinja2 and matplotlib ({error}); install jaxsec[report].") from error
    # model and file names come from outside, so everything is escaped but the charts, whose text matplotlib and ElementTree escape
    loader = Environment(
        loader=PackageLoader("jaxsec.audit", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    loader.filters |= {"valued": valued, "whole": _whole}
    page = loader.get_template("report.html.j2").render(
        data=data,
        charts=[(c, Markup(c.svg), Markup(c.narrow)) for c in charts],
        examples=examples,
        examples_said=examples_said(data) if data["examples"] else "",
        rows_said=rows_said(data),
        limited=limited_said(data),
        sandwich=sandwich_shares(data),
        smoothed=smoothed_shares(data),
        skipped=skipped_said(data),
        noise_said=noise_said(data["probes"]["noise"]) if "noise" in data["probes"] else "",
        attacks=attacks_of(data),
        settings=settings_of(data),
    )
    if len(page.encode()) > LIMIT:
        raise ValueError(f"the HTML report is {len(page.encode())} bytes, more than {LIMIT}; lower the plan's examples.")
    return page


def attacks_of(data: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What ran against the model: name, how, rows broken at eps, wall time. AutoAttack's stages see only what earlier ones left."""
    probes, plan = data["probes"], data["plan"]
    by = probes.get("worst_case", {}).get("by_probe", {})
    label = {
        "attack": (f"AutoAttack, {plan['attack']}" + (", reduced" if plan["reduced"] else ""), ""),
        "sweep": ("PGD", f"{runs_of(plan)}, at each budget of the curve up to eps"),
        "blackbox": ("Square alone", f"{plan['blackbox_queries']} queries of scores, no gradient"),
        "certify": ("beta-CROWN", f"at most {plan['certify_timeout']:g} s for each row and budget that it worked on"),
        "distance": ("FAB without a budget", f"{plan['distance_steps']} steps; counted where it came within eps"),
    }
    rows = []
    for name, count in by.items():
        title, how = label[name]
        if name == "attack":
            how = "; ".join(f"{s['name']} broke {s['broken']}" for s in probes[name]["stages"])
        rows.append((title, how, str(count), f"{probes[name]['wall_s']:.1f}"))
    return rows


def settings_of(data: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The appendix: everything needed to run the audit again, as titled lists of names and values."""
    env, wall = data["environment"], f"{data['wall_s']:.1f} s{resumed_said(data)}"
    groups = [
        (
            "Run",
            [
                ("Started", data["started"]),
                ("Wall time", wall),
                ("Command", " ".join(data["command_line"])),
            ],
        ),
        ("Model", _pairs(data["model"])),
        ("Data", _pairs(data["data"])),
        ("Threat", _pairs(data["threat"])),
        ("Key and context", [("Key", f"{data['key']['impl']} {data['key']['data']}"), *_pairs(data["context"])]),
        ("Plan", _pairs(data["plan"])),
        ("Environment", _pairs(env["packages"]) + _pairs({k: v for k, v in env.items() if k != "packages"})),
    ]
    for name, probe in data["probes"].items():
        if isinstance(probe, dict) and "settings" in probe:
            groups.append((f"Probe: {name}", [("wall time", f"{probe['wall_s']:.1f} s"), *_pairs(probe["settings"])]))
    return groups


def _whole(cell: str) -> str:
    """A cell of numbers that a narrow column breaks between a value and its interval only."""
    return cell.replace(", ", ",\u00a0").replace(" %", "\u00a0%")


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(k.replace("_", " "), _text(v)) for k, v in values.items() if v not in ("", None, [])]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _pictures(example: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """An example with its three pictures, or, for rows that are no images, its largest changes."""
    clean, change = decode(example["clean"]), decode(example["change"])
    out = {k: v for k, v in example.items() if k not in ("clean", "change")}
    if example["clean"]["kind"] == "vector":
        top = np.argsort(-np.abs(change))[:FEATURES]
        return out | {"changes": [(int(i), float(clean[i]), float(clean[i] + change[i])) for i in top], "pictures": []}
    lo, hi = _range(data, clean)
    largest = float(np.abs(change).max()) or 1.0
    factor = 0.5 * (hi - lo) / largest
    out["factor"], out["largest"], out["changes"] = factor, float(np.abs(change).max()), []
    out["pictures"] = [
        ("clean", f"Clean input of row {example['row']}, class {example['label']}", _png((clean - lo) / (hi - lo))),
        ("change", f"Change, magnified {factor:.3g} times; mid grey is no change", _png(0.5 + change * factor / (hi - lo))),
        ("attacked", f"Adversarial input, answered as class {example['predicted']}", _png((clean + change - lo) / (hi - lo))),
    ]
    return out


def _range(data: dict[str, Any], clean: np.ndarray) -> tuple[float, float]:
    lo, hi = data["threat"]["lo"], data["threat"]["hi"]
    if isinstance(lo, int | float) and isinstance(hi, int | float) and hi > lo:
        return float(lo), float(hi)
    return float(clean.min()), max(float(clean.max()), float(clean.min()) + 1e-6)


def _png(image: np.ndarray) -> str:
    """[H, W, C] in [0, 1] as a data URI; 1 channel is grey, 3 or 4 are colour, others show the mean of the channels."""
    from matplotlib.image import imsave

    if image.shape[2] not in (3, 4):
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    out = io.BytesIO()
    nothing: Any = None  # matplotlib would write its version; its types do not know that None leaves the entry out
    imsave(out, np.clip(image[..., :3] * 255 + 0.5, 0, 255).astype(np.uint8), format="png", metadata={"Software": nothing})
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
