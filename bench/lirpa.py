"""auto_LiRPA 0.3 (2022) under torch 2.13 and NumPy 2: what both dropped since is put back at import; its code is untouched."""

import importlib
import sys
import types
import warnings

import numpy as np
import torch


def load() -> types.ModuleType:
    """auto_LiRPA, imported past what torch and NumPy dropped since; its `warnings.simplefilter('once')` does not stay."""
    moved = types.ModuleType("numpy.lib.arraysetops")  # private since NumPy 2; imported by operators/base.py, never used
    moved.isin = np.isin
    helper = importlib.import_module("torch.onnx.symbolic_helper")  # not the attribute of torch.onnx: another module
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    added = {"numpy.lib.arraysetops": moved} if "numpy.lib.arraysetops" not in sys.modules else {}
    if not hasattr(helper, "_set_opset_version"):
        helper._set_opset_version = lambda version: setattr(GLOBALS, "export_onnx_opset_version", version)
    if not hasattr(torch._C.Node, "__getitem__"):  # torch.onnx patched it in until 1.12
        torch._C.Node.__getitem__ = lambda node, name: getattr(node, node.kindOf(name))(name)
    sys.modules.update(added)
    with warnings.catch_warnings(record=True):  # torch.jit.script and the TorchScript exporter are deprecated
        try:
            lirpa = importlib.import_module("auto_LiRPA")
        finally:
            for name in added:
                del sys.modules[name]
    cls = lirpa.BoundedModule  # only conv_mode="matrix" and .parameters() get here: torch 2 passes one more argument
    if not hasattr(cls, "_members_of_2022"):
        cls._members_of_2022 = cls._named_members
        cls._named_members = lambda self, get, prefix="", recurse=True, **_: self._members_of_2022(get, prefix, recurse)
    return lirpa


def build(net, steps: int = 20):
    """The bounded model; every option not named here is auto_LiRPA's default (lr_alpha 0.5, lr_decay 0.98, keep_best)."""
    lirpa = load()
    options = {"conv_mode": "patches", "optimize_bound_args": {"iteration": steps}}
    with warnings.catch_warnings(record=True):
        return lirpa.BoundedModule(net, torch.zeros(2, 1, 28, 28), bound_opts=options, device="cpu")


def problem(x, y, eps: float):
    """The box of each image in [0, 1], and C [n, 9, 10]: logit y minus each other, in ascending order."""
    lirpa = load()
    x, y = torch.tensor(np.asarray(x, np.float32)), torch.tensor(np.asarray(y)).long()
    ball = lirpa.PerturbationLpNorm(norm=np.inf, eps=eps, x_L=(x - eps).clamp(0, 1), x_U=(x + eps).clamp(0, 1))
    eye = torch.eye(10)
    others = torch.stack([torch.tensor([c for c in range(10) if c != k]) for k in y.tolist()])
    return lirpa.BoundedTensor(x, ball), eye[y][:, None] - eye[others]


def lower(model, x, c, method: str) -> np.ndarray:
    """Lower bounds of the margins [n, 9]."""
    if method == "CROWN-Optimized":  # needs gradients; the rest of its work switches them off by itself
        return model.compute_bounds(x=(x,), C=c, method=method, bound_upper=False)[0].detach().numpy()
    with torch.no_grad():
        return model.compute_bounds(x=(x,), C=c, method=method, bound_upper=False)[0].numpy()
