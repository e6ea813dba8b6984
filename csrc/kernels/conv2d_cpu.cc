// Picks the variant of the convolution for this processor.
#include "jaxsec/conv2d.h"

#include <algorithm>

#include "isa.h"

namespace jaxsec {

JAXSEC_VARIANTS(Conv2d, (const Conv2dPlan&, const float*, const float*, const float*, const float*, float*, float*, int64_t, int64_t))

int64_t Conv2dGroup(const Conv2dPlan& s) {
  constexpr int64_t kMost = 64, kCacheFloats = 1 << 16;  // a quarter of a megabyte: half of a common second-level cache
  return std::clamp<int64_t>(kCacheFloats / (s.h * s.w * s.c + s.oh * s.ow * s.o), 1, kMost);
}

int64_t Conv2dScratch(const Conv2dPlan& s) {
  return Conv2dGroup(s) * ((s.gated ? s.h * s.w * s.c : 0) + (s.Direct() ? 0 : s.oh * s.ow * s.o));
}

int Conv2dVariants(Conv2dFn variants[3]) { return VariantsConv2d(variants); }

}  // namespace jaxsec
