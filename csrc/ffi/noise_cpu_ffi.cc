#include "noise_cpu_ffi.h"

#include <algorithm>

#include "jaxsec/noise.h"
#include "noise_args.h"
#include "parallel.h"

namespace ffi = xla::ffi;

namespace {

// Values per task: some 20 microseconds of work, whose output stays in the second-level cache.
constexpr int64_t kValuesPerTask = int64_t{1} << 16;
constexpr int64_t kBlocksPerPart = kValuesPerTask / 4;  // where a row is longer than a task

ffi::Error Noise(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::Buffer<ffi::U32> key, ffi::Buffer<ffi::U32> first, ffi::Buffer<ffi::F32> sigma,
                 ffi::Buffer<ffi::F32> multiply, ffi::Buffer<ffi::F32> add, ffi::Buffer<ffi::U32> table, ffi::Result<ffi::AnyBuffer> y, int64_t distribution, int64_t inner) {
  jaxsec::NoisePlan plan;
  jaxsec::NoiseArrays arrays;
  if (ffi::Error e = jaxsec::PlanNoise(x, key, first, sigma, multiply, add, table, y, distribution, inner, plan, arrays); e.failure()) return e;
  const int64_t rows = plan.images * plan.samples, blocks = plan.Blocks();
  if (rows * blocks == 0) return ffi::Error::Success();
  static const jaxsec::NoiseFn run = [] {
    jaxsec::NoiseFn variants[3];
    jaxsec::NoiseVariants(variants);
    return variants[0];
  }();
  // Short rows are handed out several at a time, long ones in parts.
  const int64_t parts = (blocks + kBlocksPerPart - 1) / kBlocksPerPart;
  const int64_t per_task = std::max<int64_t>(1, kValuesPerTask / plan.d), groups = (rows + per_task - 1) / per_task;
  jaxsec::Parallel(pool, groups * parts, [&](int64_t task) {
    const int64_t row = task / parts * per_task, part = task % parts;
    run(plan, arrays, row, std::min(rows, row + per_task), blocks * part / parts, blocks * (part + 1) / parts);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxsecNoise, Noise, JAXSEC_NOISE_BINDING(xla::ffi::ThreadPool));
