"""Slow float64 answers by other means than the library's: bisection on the multiplier, linear programs, and every subset."""

import itertools

import numpy as np
from scipy.optimize import linprog


def project_oracle(norm, x0, x, eps, lo, hi):
    """One row. Bisection on the multiplier of the norm constraint, 200 halvings."""
    x0, x = np.asarray(x0, np.float64), np.asarray(x, np.float64)

    def point(multiplier):
        if norm == "l2":
            return np.clip((x + multiplier * x0) / (1 + multiplier), lo, hi)
        v = x - x0
        return np.clip(x0 + np.sign(v) * np.maximum(np.abs(v) - multiplier, 0), lo, hi)

    order = 2 if norm == "l2" else 1
    if norm == "linf":
        return np.clip(np.clip(x, x0 - eps, x0 + eps), lo, hi)
    if np.linalg.norm(point(0.0) - x0, order) <= eps:
        return point(0.0)
    left, right = 0.0, 1e12
    for _ in range(200):
        middle = np.sqrt(max(left, 1e-12) * right) if right > 1 else 0.5 * (left + right)
        if np.linalg.norm(point(middle) - x0, order) > eps:
            left = middle
        else:
            right = middle
    return point(right)


def support_oracle(norm, x0, w, eps, lo, hi):
    """One row: max <w, x>. Linear programs for linf and l1; for l2 bisection on x = clip(x0 + t w)."""
    x0, w = np.asarray(x0, np.float64), np.asarray(w, np.float64)
    d = x0.size
    bounds = [(None if np.isinf(lo) else lo, None if np.isinf(hi) else hi)] * d
    if norm == "linf":
        return _solve(-w, None, None, [(max(lo, v - eps), min(hi, v + eps)) for v in x0])
    if norm == "l1":  # x = x0 + a - b with a, b >= 0 and sum(a + b) <= eps
        eye = np.eye(d)
        rows, limits = [np.ones((1, 2 * d))], [np.array([eps])]
        if not np.isinf(hi):
            rows.append(np.hstack([eye, -eye]))
            limits.append(hi - x0)
        if not np.isinf(lo):
            rows.append(np.hstack([-eye, eye]))
            limits.append(x0 - lo)
        return w @ x0 + _solve(np.concatenate([-w, w]), np.vstack(rows), np.concatenate(limits), [(0, None)] * (2 * d))
    del bounds
    left, right = 0.0, 1e9
    if np.linalg.norm(np.clip(x0 + right * w, lo, hi) - x0) <= eps:
        return w @ np.clip(x0 + right * w, lo, hi)
    for _ in range(300):
        middle = 0.5 * (left + right)
        if np.linalg.norm(np.clip(x0 + middle * w, lo, hi) - x0) > eps:
            right = middle
        else:
            left = middle
    return w @ np.clip(x0 + left * w, lo, hi)


def _solve(cost, rows, limits, bounds):
    answer = linprog(cost, A_ub=rows, b_ub=limits, bounds=bounds, method="highs")
    assert answer.status == 0, answer.message
    return -answer.fun


def norm_of(norm, d):
    d = np.abs(np.asarray(d, np.float64))
    return {"linf": d.max(initial=0), "l2": np.sqrt((d * d).sum()), "l1": d.sum()}[norm]


def l0_oracle(x0, x, w, eps, lo, hi):
    """One row [D, C] of D positions: (nearest point to x, largest <w, z>) over all subsets of at most eps positions."""
    x0, x, w = (np.asarray(v, np.float64) for v in (x0, x, w))
    corner = np.where(w > 0, hi, np.where(w < 0, lo, x0))
    nearest, best = (np.inf, x0), -np.inf
    for subset in itertools.chain.from_iterable(itertools.combinations(range(len(x0)), r) for r in range(min(int(eps), len(x0)) + 1)):
        z, top = x0.copy(), x0.copy()
        z[list(subset)], top[list(subset)] = np.clip(x[list(subset)], lo, hi), corner[list(subset)]
        nearest = min(nearest, (np.sum((z - x) ** 2), z), key=lambda v: v[0])
        best = max(best, np.sum(w * top))
    return nearest[1], best


def patch_places(shape, sides, layout):
    """[P, ...] bool: every window of one image of that shape, by loops."""
    height, width = shape[1:] if layout == "chw" else shape[:2]
    found = []
    for top in range(height - sides[0] + 1):
        for left in range(width - sides[1] + 1):
            inside = np.zeros((height, width), bool)
            inside[top : top + sides[0], left : left + sides[1]] = True
            found.append(np.broadcast_to(inside[None] if layout == "chw" else inside[..., None], shape))
    return np.array(found)


def patch_project_oracle(x0, x, sides, layout, lo, hi):
    """(nearest distance, all points of the set at that distance) of one image: the best of all windows."""
    x0, x = np.asarray(x0, np.float64), np.asarray(x, np.float64)
    points = [np.where(inside, np.clip(x, lo, hi), x0) for inside in patch_places(x0.shape, sides, layout)]
    far = np.array([np.linalg.norm(p - x) for p in points])
    return far.min(), [p for p, f in zip(points, far, strict=True) if f <= far.min() + 1e-9]


def patch_support_oracle(x0, w, sides, layout, lo, hi):
    """One image: max <w, x> over all windows and corners."""
    x0, w = np.asarray(x0, np.float64), np.asarray(w, np.float64)
    best = np.where(w > 0, hi, lo)
    return max(np.sum(w * np.where(inside, best, x0)) for inside in patch_places(x0.shape, sides, layout))
