// The part of a convolution that a change of its input reaches, on the CPU.
//
// Each image n has a window [top, bottom) x [left, right): there its input is `fresh`, everywhere else `base`. Written are, into y,
// only the output positions that read the window; the rest of y is left as it is:
//   y[n, a, b, o] = sum_{i, j, c} x[n, a*stride + i - pad_top, b*stride + j - pad_left, c] * w[i, j, c, o] + bias[o]
// in the order of the sums of conv2d.h, so that a result is the same bits however small its window. Zeros stand around the image.
// With `lines`, each output line a has weights w[a] of its own: the line sums of a dense layer over a flattened image, for kh = 1
// and kw = w.
#pragma once
#include <algorithm>
#include <cstdint>

namespace jaxsec {

struct LocalPlan {
  int64_t n, h, w, c;             // input
  int64_t kh, kw, o;              // kernel; o is a multiple of 16
  int64_t oh, ow, out_c;          // output; out_c <= o
  int64_t stride, pad_top, pad_left;
  bool relu, lines;
};

struct LocalArrays {
  const float *base, *fresh;
  const int32_t* window;  // per image: top, bottom, left, right; empty where top >= bottom or left >= right
  const float *w, *bias;
  float* y;
};

// Positions of an axis that read [from, to) of an input of `size`: [first, last). A window that ends at a border has those beyond it, which
// read zeros only: so a whole image reaches everything.
struct Reach {
  int64_t first, last;
  Reach(int64_t from, int64_t to, int64_t size, int64_t stride, int64_t pad, int64_t k, int64_t count)
      : first(from <= 0 || from + pad < k ? 0 : (from + pad - k) / stride + 1),
        last(to >= size ? count : std::min(count, (to - 1 + pad) / stride + 1)) {}
};

// The window of y for each image in [begin, end): the positions that read the window of x. Empty ones stay empty.
void LocalReach(const LocalPlan& plan, const int32_t* window, int32_t* reached, int64_t begin, int64_t end);

// z[n, o] = sum over lines a, from the first on, of `fresh` [n, a, o] inside the window and of `base` elsewhere; `reached` is y's window.
void SumLines(const LocalPlan& plan, const float* base, const float* fresh, const int32_t* reached, float* z, int64_t begin, int64_t end);

// Images worked on together, so that few tiles of positions stay partly filled.
int64_t LocalGroup(const LocalPlan& plan);

// Floats of scratch that one worker needs.
int64_t LocalScratch(const LocalPlan& plan);

// Computes images [begin, end); images never mix.
using LocalFn = void (*)(const LocalPlan& plan, const LocalArrays& a, float* scratch, int64_t begin, int64_t end);

// Moves the window of `fresh` into `base` for every image with accept != 0: [n, h, w, c], images [begin, end).
void Settle(int64_t h, int64_t w, int64_t c, const float* fresh, const int32_t* window, const bool* accept, float* base, int64_t begin,
            int64_t end);

// The variants that this processor runs, widest first; there is always one.
int LocalVariants(LocalFn variants[3]);

}  // namespace jaxsec
