// Direct 2-D convolution of NHWC rows on the CPU: the plan shared by every instruction set.
//
// One call computes, for each image n, virtual output position (a, b) and column o in [0, O):
//   t[n, a, b, o] = sum_{i, j, c} x'[n, a*stride + i - pad_top, b*stride + j - pad_left, c] * w[i, j, c, o] + bias[o]
// with x' = x outside a gate, and x where gate > 0 inside one (the derivative of ReLU, fused into the read).
// Columns are then dealt out as `phase` x `phase` blocks of pixels ("depth to space"), cropped and optionally rectified:
//   y[n, a*phase + ry - crop_top, b*phase + rx - crop_left, c] = t[n, a, b, (ry*phase + rx)*out_c + c].
// phase > 1 expresses the input gradient of a strided convolution, and keeps vector lanes full when out_c is small.
#pragma once
#include <cstdint>

namespace jaxsec {

struct Conv2dPlan {
  int64_t n, h, w, c;              // input
  int64_t kh, kw, o;               // kernel; o is a multiple of 16
  int64_t oh, ow;                  // virtual output positions
  int64_t stride, pad_top, pad_left;
  int64_t phase, out_h, out_w, out_c, crop_top, crop_left;
  bool relu, gated;

  // Columns are the output as it lies in memory.
  bool Direct() const {
    return phase == 1 && o == out_c && oh == out_h && ow == out_w && crop_top == 0 && crop_left == 0;
  }
};

// Images that are worked on together: enough to fill vector registers at every position, few enough for the cache.
int64_t Conv2dGroup(const Conv2dPlan& plan);

// Floats of scratch that one worker needs.
int64_t Conv2dScratch(const Conv2dPlan& plan);

// Computes images [begin, end). Rows never mix, so the result does not depend on how the batch is split.
using Conv2dFn = void (*)(const Conv2dPlan& plan, const float* x, const float* w, const float* bias, const float* gate, float* y,
                          float* scratch, int64_t begin, int64_t end);

// The variants that this processor runs, widest first; there is always one.
int Conv2dVariants(Conv2dFn variants[3]);
inline Conv2dFn SelectConv2d() {
  Conv2dFn variants[3];
  Conv2dVariants(variants);
  return variants[0];
}

}  // namespace jaxsec
