// One move of the FAB attack on the CPU: from a point and its clean input to a linearised decision boundary, inside a box.
//
// For each row, with f(z) = value + <w, z - x> the plane through the decision boundary near x:
//   d(p) = the smallest step, in the norm, with f(p + d) = 0 and lo <= p + d <= hi; as far as the box allows where none exists
//   a    = min(|d(x)| / (|d(x)| + |d(x0)|), alpha_max)
//   y    = clip((1 - a) (x + eta d(x)) + a (x0 + eta d(x0)), lo, hi)
// A row whose w is zero or not finite goes half way to x0. Source: Croce and Hein 2020 (FAB), eq. 5 to 8.
#pragma once
#include <cstdint>

namespace jaxsec {

struct BoundaryPlan {
  int64_t rows, d;
  // rows and columns of the box: 1, or a divisor of `rows`; 1 or d
  int64_t lo_rows, lo_columns, hi_rows, hi_columns;
  bool l2;  // else L-infinity
};

struct BoundaryArrays {
  const float *x, *x0, *w;
  const float* terms;  // per row: value, alpha_max, eta
  const float *lo, *hi;
  float* y;
};

// Floats of scratch that one worker needs.
int64_t BoundaryScratch(const BoundaryPlan& plan);

// Computes rows [begin, end); rows never mix.
using BoundaryFn = void (*)(const BoundaryPlan& plan, const BoundaryArrays& a, float* scratch, int64_t begin, int64_t end);

// The variants that this processor runs, widest first; there is always one.
int BoundaryVariants(BoundaryFn variants[3]);

}  // namespace jaxsec
