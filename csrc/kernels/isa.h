// What this processor runs beyond the baseline: the x86-64 feature levels 3 and 4.
#pragma once

namespace jaxsec {

#if defined(__x86_64__)
inline bool HasV4() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
}
inline bool HasV3() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }
#endif

}  // namespace jaxsec
