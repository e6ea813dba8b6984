"""The worst inputs of an audit, small enough to live in the report."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..attack._square import image_axes
from ._sandwich import wrong_clean
from ._subject import Outcome, Subject

LARGEST_SIDE = 64
FEATURES = 5  # of a row that is no image so many are shown


def examples_of(subject: Subject, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Broken rows with the nearest adversarial inputs first (most confidently wrong first where distances were not measured)."""
    if "attack" not in outcomes:
        return []
    a = outcomes["attack"].arrays
    rows = np.flatnonzero(a["success"] & ~wrong_clean(subject, outcomes["clean"]))
    near = outcomes["distance"].arrays["distance"] if "distance" in outcomes else -a["confidence"]
    rows = rows[np.argsort(near[rows], kind="stable")][: subject.plan.examples]
    return [
        {
            "row": int(subject.ids[r]),
            "label": int(subject.y[r]),
            "clean_confidence": float(outcomes["clean"].arrays["confidence"][r]),
            "predicted": int(a["predicted"][r]),
            "confidence": float(a["confidence"][r]),
            "distance": float(a["distance"][r]),
            "nearest": float(near[r]) if "distance" in outcomes and np.isfinite(near[r]) else None,
            "stage": outcomes["attack"].settings["stages"][int(a["stage"][r])],
            "clean": encode(subject.x[r], subject.layout),
            "change": encode(a["x"][r] - subject.x[r], subject.layout),
        }
        for r in rows
    ]


def encode(row: np.ndarray, layout: str | None) -> dict[str, Any]:
    """A row as base64 of little-endian float16: images as [H, W, C] with at most 64 pixels a side (every n-th pixel), others flat."""
    step = 1
    if layout is not None:
        h, w, c = image_axes(row.shape, layout)
        row = np.transpose(row, (h, w, c)) if c is not None else row[..., None]
        step = -(-max(row.shape[:2]) // LARGEST_SIDE)
        row = row[::step, ::step]
    else:
        row = row.reshape(-1)
    data = base64.b64encode(np.ascontiguousarray(row, "<f2").tobytes()).decode()
    return {"kind": "vector" if layout is None else "image", "shape": list(row.shape), "every": step, "float16": data}


def decode(entry: Mapping[str, Any]) -> np.ndarray:
    """What `encode` wrote, as float32 (float16's 11 bits are enough to look at)."""
    return np.frombuffer(base64.b64decode(entry["float16"]), "<f2").astype(np.float32).reshape(entry["shape"])
