// Launching the noise of noise.h on a CUDA stream.
#pragma once
#include <cuda_runtime.h>

#include "jaxsec/noise.h"

namespace jaxsec {

// Only enqueues: no allocation, no synchronisation, so it may be captured in a graph.
cudaError_t LaunchNoise(cudaStream_t stream, const NoisePlan& plan, const NoiseArrays& arrays);

}  // namespace jaxsec
