// Picks the variant of the convolution's weight gradient for this processor.
#include "jaxsec/conv2d_weights.h"

#include <algorithm>

#include "isa.h"

namespace jaxsec {

JAXSEC_VARIANTS(Conv2dWeights,
                (const Conv2dWeightsPlan&, const float*, const float*, const float*, float*, float*, float*, int64_t, int64_t))

static int64_t Frame(const Conv2dWeightsPlan& s) { return s.FrameH() * s.FrameW() * s.c; }

int64_t Conv2dWeightsGroup(const Conv2dWeightsPlan& s) {
  constexpr int64_t kMost = 64, kCacheFloats = 1 << 16;  // a quarter of a megabyte: half of a common second-level cache
  return std::clamp<int64_t>(kCacheFloats / (Frame(s) + s.oh * s.ow * s.Columns()), 1, kMost);
}

int64_t Conv2dWeightsScratch(const Conv2dWeightsPlan& s) {
  return Conv2dWeightsGroup(s) * (s.oh * s.ow * s.Columns() + Frame(s));
}

int Conv2dWeightsVariants(Conv2dWeightsFn variants[3]) { return VariantsConv2dWeights(variants); }

}  // namespace jaxsec
