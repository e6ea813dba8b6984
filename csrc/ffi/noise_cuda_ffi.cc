#include "noise_cuda_ffi.h"

#include "jaxsec/noise_cuda.h"
#include "noise_args.h"

namespace ffi = xla::ffi;

namespace {

ffi::Error Noise(cudaStream_t stream, ffi::AnyBuffer x, ffi::Buffer<ffi::U32> key, ffi::Buffer<ffi::U32> first, ffi::Buffer<ffi::F32> sigma,
                 ffi::Buffer<ffi::F32> multiply, ffi::Buffer<ffi::F32> add, ffi::Buffer<ffi::U32> table, ffi::Result<ffi::AnyBuffer> y, int64_t distribution, int64_t inner) {
  jaxsec::NoisePlan plan;
  jaxsec::NoiseArrays arrays;
  if (ffi::Error e = jaxsec::PlanNoise(x, key, first, sigma, multiply, add, table, y, distribution, inner, plan, arrays); e.failure()) return e;
  const cudaError_t status = jaxsec::LaunchNoise(stream, plan, arrays);
  if (status != cudaSuccess) return ffi::Error::Internal(std::string("jaxsec_noise: ") + cudaGetErrorString(status));
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecNoiseCuda, Noise, JAXSEC_NOISE_BINDING(xla::ffi::PlatformStream<cudaStream_t>), {ffi::Traits::kCmdBufferCompatible});
