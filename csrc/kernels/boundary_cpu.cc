// Picks the variant of the boundary move for this processor.
#include "jaxsec/boundary.h"

#include "isa.h"

namespace jaxsec {

#define JAXSEC_DECLARE(isa)                                                                       \
  namespace isa {                                                                                 \
  void Boundary(const BoundaryPlan&, const BoundaryArrays&, float*, int64_t begin, int64_t end);  \
  }
JAXSEC_DECLARE(base)
#if defined(__x86_64__)
JAXSEC_DECLARE(x86_64_v3)
JAXSEC_DECLARE(x86_64_v4)
#endif
#undef JAXSEC_DECLARE

int64_t BoundaryScratch(const BoundaryPlan& plan) { return 10 * (plan.d + 15) / 16 * 16 + 160; }

int BoundaryVariants(BoundaryFn variants[3]) {
  int n = 0;
#if defined(__x86_64__)
  if (HasV4()) variants[n++] = x86_64_v4::Boundary;
  if (HasV3()) variants[n++] = x86_64_v3::Boundary;
#endif
  variants[n++] = base::Boundary;
  return n;
}

}  // namespace jaxsec
