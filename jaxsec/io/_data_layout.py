"""The arrangement of image axes: flat rows, channels first, channels last."""

import numpy as np

from ._data_error import DataError

_CHANNELS = (1, 3, 4)


def guessed(shape: tuple[int, ...]) -> str:
    """The layout that the sizes tell: two axes are flat; four are images, their channels the axis of length 1, 3 or 4 if only one is."""
    if len(shape) == 2:
        return "flat"
    if len(shape) == 4 and (shape[1] in _CHANNELS) != (shape[3] in _CHANNELS):
        return "NCHW" if shape[1] in _CHANNELS else "NHWC"
    return ""


def arranged(x: np.ndarray, stored: str, wanted: str, name: str) -> np.ndarray:
    """`x` moved from one layout to the other; what cannot be known raises."""
    if stored == "NHW" or (x.ndim == 3 and not stored and wanted in ("NCHW", "NHWC")):
        x, stored = x[:, None], "NCHW"
    if stored in ("NCHW", "NHWC") and x.ndim < 3:
        raise DataError(f"{name} has rows of shape {x.shape[1:]}, which are no {stored} images; leave stored_layout out.")
    if wanted in (stored, ""):
        return x
    if wanted == "flat":
        return x.reshape(len(x), -1)
    if stored == "NCHW" and wanted == "NHWC":
        return np.moveaxis(x, 1, -1)
    if stored == "NHWC" and wanted == "NCHW":
        return np.moveaxis(x, -1, 1)
    if stored == "flat":
        axes = "[N, C, H, W]" if wanted == "NCHW" else "[N, H, W, C]"
        raise DataError(
            f"{name} has flat rows of {x[0].size} numbers, which do not tell height, width and channels, so layout={wanted!r} cannot be "
            f"made of them; reshape the array in the file to {axes}."
        )
    raise DataError(
        f"{name} has rows of shape {x.shape[1:]}, which do not tell where the channels are, so layout={wanted!r} cannot be made of them; "
        "say how they are stored: stored_layout='NCHW' (channels first) or stored_layout='NHWC' (channels last)."
    )
