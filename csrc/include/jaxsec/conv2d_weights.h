// The gradient of a 2-D convolution of NHWC rows in its weights, on the CPU: the plan shared by every instruction set.
//
// With g' = g outside a gate, and g where gate > 0 inside one (the derivative of ReLU, fused into the read):
//   dw[i, j, c, o] = sum_{n, a, b} x[n, a*stride + i - pad_top, b*stride + j - pad_left, c] * g'[n, a, b, o]
//   db[o]          = sum_{n, a, b} g'[n, a, b, o]
// where x is 0 outside its image. Sums of one group of images come first, then those of the groups, in order.
#pragma once
#include <cstdint>

namespace jaxsec {

struct Conv2dWeightsPlan {
  int64_t n, h, w, c;   // input
  int64_t kh, kw, o;    // kernel
  int64_t oh, ow;       // output positions
  int64_t stride, pad_top, pad_left;
  bool gated;

  int64_t Rows() const { return kh * kw * c; }  // of dw, seen as a matrix of o columns
  // The part of the frame that windows read.
  int64_t FrameH() const { return (oh - 1) * stride + kh; }
  int64_t FrameW() const { return (ow - 1) * stride + kw; }
  // The image itself can stand for the frame.
  bool Inside() const { return pad_top == 0 && pad_left == 0 && FrameH() <= h && FrameW() <= w; }
  int64_t Columns() const { return (o + 15) / 16 * 16; }
};

// Units of work: so many rows of dw each, fewer in the last one.
constexpr int64_t kConv2dWeightsUnit = 12;
inline int64_t Conv2dWeightsUnits(const Conv2dWeightsPlan& plan) { return (plan.Rows() + kConv2dWeightsUnit - 1) / kConv2dWeightsUnit; }

// Images that are worked on together, so that they stay in the cache.
int64_t Conv2dWeightsGroup(const Conv2dWeightsPlan& plan);

// Floats of scratch that one worker needs.
int64_t Conv2dWeightsScratch(const Conv2dWeightsPlan& plan);

// Computes the rows of units [begin, end), and db with unit 0. The result does not depend on how the units are split.
using Conv2dWeightsFn = void (*)(const Conv2dWeightsPlan& plan, const float* x, const float* g, const float* gate, float* dw, float* db,
                                 float* scratch, int64_t begin, int64_t end);

// The variants that this processor runs, widest first; there is always one.
int Conv2dWeightsVariants(Conv2dWeightsFn variants[3]);
inline Conv2dWeightsFn SelectConv2dWeights() {
  Conv2dWeightsFn variants[3];
  Conv2dWeightsVariants(variants);
  return variants[0];
}

}  // namespace jaxsec
