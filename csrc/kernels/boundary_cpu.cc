// Picks the variant of the boundary move for this processor.
#include "jaxsec/boundary.h"

#include "isa.h"

namespace jaxsec {

JAXSEC_VARIANTS(Boundary, (const BoundaryPlan&, const BoundaryArrays&, float*, int64_t, int64_t))

// Ten padded rows: the five that are read, and w over its scale, its size, the caps and two steps.
int64_t BoundaryScratch(const BoundaryPlan& plan) { return 10 * ((plan.d + 15) / 16 * 16); }

int BoundaryVariants(BoundaryFn variants[3]) { return VariantsBoundary(variants); }

}  // namespace jaxsec
