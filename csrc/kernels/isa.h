// Kernels are compiled once per instruction set (isa_*.cc); here is how the variants of one are declared and picked.
#pragma once

namespace jaxsec {

// JAXSEC_VARIANTS(Name, (arguments)) declares base::Name and, on x86-64, those of feature levels 3 and 4, and defines
// Variants##Name(out): fills in what this processor runs, widest first, and gives how many.
#if defined(__x86_64__)
inline bool HasV4() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd");
}
inline bool HasV3() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }
#define JAXSEC_VARIANTS(Name, arguments)                 \
  namespace base { void Name arguments; }                \
  namespace x86_64_v3 { void Name arguments; }           \
  namespace x86_64_v4 { void Name arguments; }           \
  static int Variants##Name(void (*out[3]) arguments) {  \
    int n = 0;                                           \
    if (HasV4()) out[n++] = x86_64_v4::Name;             \
    if (HasV3()) out[n++] = x86_64_v3::Name;             \
    out[n++] = base::Name;                               \
    return n;                                            \
  }
#else
#define JAXSEC_VARIANTS(Name, arguments)                 \
  namespace base { void Name arguments; }                \
  static int Variants##Name(void (*out[3]) arguments) {  \
    out[0] = base::Name;                                 \
    return 1;                                            \
  }
#endif

}  // namespace jaxsec
