// Picks the variant of the noise for this processor.
#include "jaxsec/noise.h"

#include "isa.h"

namespace jaxsec {

JAXSEC_VARIANTS(Noise, (const NoisePlan&, const NoiseArrays&, int64_t, int64_t, int64_t, int64_t))

int NoiseVariants(NoiseFn variants[3]) { return VariantsNoise(variants); }

}  // namespace jaxsec
