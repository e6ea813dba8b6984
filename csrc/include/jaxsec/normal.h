// From words to values: the polynomials that every backend evaluates, and the scalar form of the transforms for host and device.
#ifndef JAXSEC_NORMAL_H_
#define JAXSEC_NORMAL_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "jaxsec/philox.h"

namespace jaxsec {

// Minimax in relative error, by Remez in float64, then rounded (bench/remez.py prints them):
//   ln(1 + f) = f + f^2 sum_i L_i f^i       on [sqrt(1/2) - 1, sqrt(2) - 1]   2^-25.0; here times -2
//   sin(pi t / 2) = t sum_i S_i t^(2i)      on [-1/2, 1/2]                     2^-28.2
//   cos(pi t / 2) = 1 + t^2 sum_i C_i t^2i  on [-1/2, 1/2]                     2^-33.9
constexpr float kL0 = 9.999998321e-01f, kL1 = -6.666790044e-01f, kL2 = 5.000351052e-01f, kL3 = -3.992414443e-01f;
constexpr float kL4 = 3.314101601e-01f, kL5 = -2.983594534e-01f, kL6 = 2.861504525e-01f, kL7 = -1.746969350e-01f;
constexpr float kS0 = 1.570796322e+00f, kS1 = -6.459634602e-01f, kS2 = 7.968003277e-02f, kS3 = -4.601657887e-03f;
constexpr float kC0 = -1.233700543e+00f, kC1 = 2.536692263e-01f, kC2 = -2.086016704e-02f, kC3 = 9.037702341e-04f;
constexpr float kMinusTwoLn2 = -1.386294361f;
constexpr int32_t kSqrtHalf = 0x3F3504F3;  // the bits of sqrt(1/2)
constexpr float kUlp32 = 0x1p-32f;

JAXSEC_HOST_DEVICE inline int32_t BitsOf(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_int(value);
#else
  int32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
#endif
}
JAXSEC_HOST_DEVICE inline float FloatOf(int32_t bits) {
#if defined(__CUDA_ARCH__)
  return __int_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
#endif
}

// (word + 1/2) / 2^32 rounded to float32: exact steps of 2^-32 in the tail, 1 for the 128 largest words.
JAXSEC_HOST_DEVICE inline float Half(uint32_t word) { return static_cast<float>(word) * kUlp32 + 0.5f * kUlp32; }

// -2 ln u for normal u in (0, 1].
JAXSEC_HOST_DEVICE inline float MinusTwoLog(float u) {
  const int32_t bits = BitsOf(u);
  const int32_t e = (bits - kSqrtHalf) & ~0x7FFFFF;  // the exponent, where it lies
  const float f = FloatOf(bits - e) - 1.0f;
  float q = kL7;
  q = q * f + kL6, q = q * f + kL5, q = q * f + kL4, q = q * f + kL3, q = q * f + kL2, q = q * f + kL1, q = q * f + kL0;
  return static_cast<float>(e) * (kMinusTwoLn2 / 8388608.0f) + (f * f * q + f * -2.0f);
}

JAXSEC_HOST_DEVICE inline float Root(float value) {
#if defined(__CUDA_ARCH__)
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(value));  // 1 ulp; the exact one takes a branch
  return root;
#else
  return std::sqrt(value);
#endif
}

// Two independent N(0, 1) by Box and Muller (1958): radius from word0, angle from word1.
JAXSEC_HOST_DEVICE inline void NormalPair(uint32_t word0, uint32_t word1, float& z0, float& z1) {
  const float r = Root(MinusTwoLog(Half(word0)));
  const float t = static_cast<float>(static_cast<int32_t>(word1 << 2)) * kUlp32;  // of a quarter turn, from its nearest multiple
  const uint32_t quarter = word1 + 0x20000000u;                                    // in the top two bits
  const float t2 = t * t;
  const float sine = (((kS3 * t2 + kS2) * t2 + kS1) * t2 + kS0) * t;
  const float cosine = (((kC3 * t2 + kC2) * t2 + kC1) * t2 + kC0) * t2 + 1.0f;
  const bool odd = quarter & 0x40000000u;
  const int32_t c = BitsOf(odd ? sine : cosine), s = BitsOf(odd ? cosine : sine);
  z0 = FloatOf(c ^ static_cast<int32_t>((quarter + 0x40000000u) & 0x80000000u)) * r;
  z1 = FloatOf(s ^ static_cast<int32_t>(quarter & 0x80000000u)) * r;
}

// Laplace with scale 1: the sign is the top bit, -ln of the others the size.
JAXSEC_HOST_DEVICE inline float LaplaceOf(uint32_t word) {
  const float u = static_cast<float>(word & 0x7FFFFFFFu) * (2.0f * kUlp32) + kUlp32;
  return FloatOf(BitsOf(0.5f * MinusTwoLog(u)) ^ static_cast<int32_t>(word & 0x80000000u));
}

// Flat on [-1, 1].
JAXSEC_HOST_DEVICE inline float UniformOf(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word ^ 0x80000000u)) * (2.0f * kUlp32) + kUlp32;
}

// Whole numbers by the alias method of noise.h. `second` gives the 32 bits that decide where those of `word` do not.
template <typename Second>
JAXSEC_HOST_DEVICE inline float DiscreteOf(uint32_t word, const uint32_t* table, int32_t cell_bits, Second&& second) {
  const int32_t shift = 32 - cell_bits;
  const uint32_t mask = (1u << shift) - 1u, own = word >> shift, rest = word & mask;
  const uint32_t cell = table[own], cut = cell & mask;
  const bool below = rest < cut || (rest == cut && second() < table[(uint64_t{1} << cell_bits) + own]);
  return static_cast<float>(static_cast<int32_t>(below ? own : cell >> shift) - (1 << (cell_bits - 1)));
}

}  // namespace jaxsec

#endif  // JAXSEC_NORMAL_H_
