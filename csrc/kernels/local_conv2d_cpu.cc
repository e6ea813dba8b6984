// Picks the variant of the local convolution for this processor.
#include "jaxsec/local_conv2d.h"

#include <algorithm>

#include "isa.h"

namespace jaxsec {

JAXSEC_VARIANTS(LocalConv2d, (const LocalPlan&, const LocalArrays&, float*, int64_t, int64_t))

// One image with its frame of zeros, as far as the kernel can reach.
static int64_t Frame(const LocalPlan& s) { return ((s.oh - 1) * s.stride + s.kh) * ((s.ow - 1) * s.stride + s.kw) * s.c; }

int64_t LocalGroup(const LocalPlan& s) {
  constexpr int64_t kMost = 64, kFloats = 1 << 18;
  return std::clamp<int64_t>(kFloats / (Frame(s) + s.oh * s.ow * s.o), 1, kMost);
}

int64_t LocalScratch(const LocalPlan& s) { return LocalGroup(s) * (Frame(s) + (s.o == s.out_c ? 0 : s.oh * s.ow * s.o)); }

void LocalReach(const LocalPlan& s, const int32_t* window, int32_t* reached, int64_t begin, int64_t end) {
  for (int64_t image = begin; image < end; ++image) {
    const int32_t *from = window + 4 * image, sizes[] = {from[1] - from[0], from[3] - from[2]};
    const Reach a(from[0], from[1], s.h, s.stride, s.pad_top, s.kh, s.oh);
    const Reach b(from[2], from[3], s.w, s.stride, s.pad_left, s.kw, s.ow);
    const bool empty = sizes[0] <= 0 || sizes[1] <= 0;
    const int64_t to[] = {a.first, a.last, b.first, b.last};
    for (int k = 0; k < 4; ++k) reached[4 * image + k] = empty ? 0 : static_cast<int32_t>(to[k]);
  }
}

void SumLines(const LocalPlan& s, const float* base, const float* fresh, const int32_t* reached, float* z, int64_t begin, int64_t end) {
  for (int64_t image = begin; image < end; ++image) {
    float* sum = z + image * s.out_c;
    for (int64_t a = 0; a < s.oh; ++a) {
      const bool inside = a >= reached[4 * image] && a < reached[4 * image + 1] && reached[4 * image + 2] < reached[4 * image + 3];
      const float* line = (inside ? fresh : base) + (image * s.oh + a) * s.out_c;
      if (a == 0)
        std::copy(line, line + s.out_c, sum);
      else
        for (int64_t o = 0; o < s.out_c; ++o) sum[o] += line[o];
    }
  }
}

void Settle(int64_t h, int64_t w, int64_t c, const float* fresh, const int32_t* window, const bool* accept, float* base, int64_t begin,
            int64_t end) {
  for (int64_t image = begin; image < end; ++image) {
    const int64_t top = std::max(0, window[4 * image]), bottom = std::min<int64_t>(h, window[4 * image + 1]);
    const int64_t left = std::max(0, window[4 * image + 2]), right = std::min<int64_t>(w, window[4 * image + 3]);
    if (!accept[image] || left >= right) continue;
    for (int64_t row = top; row < bottom; ++row) {
      const int64_t at = ((image * h + row) * w + left) * c;
      std::copy(fresh + at, fresh + at + (right - left) * c, base + at);
    }
  }
}

int LocalVariants(LocalFn variants[3]) { return VariantsLocalConv2d(variants); }

}  // namespace jaxsec
