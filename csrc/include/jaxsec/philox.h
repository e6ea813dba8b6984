// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw,
// "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 3.
//
// A pure function of (counter, key): any word of the stream can be made by any thread of any device without state.
// The same source serves host and device compilers.

#ifndef JAXSEC_PHILOX_H_
#define JAXSEC_PHILOX_H_

#include <cstdint>

#if defined(__CUDACC__) || defined(__HIPCC__)
#define JAXSEC_HOST_DEVICE __host__ __device__
#else
#define JAXSEC_HOST_DEVICE
#endif

namespace jaxsec {

// The 128-bit counter as two 64-bit halves; word 0 of the paper is the low half of `low`.
struct Counter {
  uint64_t low;
  uint64_t high;
};

struct Key {
  uint32_t low;
  uint32_t high;
};

struct Block {
  uint32_t word[4];
};

constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;  // golden ratio
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1
constexpr int kPhiloxRounds = 10;               // 7 already pass BigCrush (paper, table 2); 10 is the recommended margin

// One round on the words x0..x3, in place.
JAXSEC_HOST_DEVICE inline void philox_round(uint32_t& x0, uint32_t& x1, uint32_t& x2, uint32_t& x3, uint32_t key0, uint32_t key1) {
  const uint64_t product0 = uint64_t{kPhiloxMultiplier0} * x0;
  const uint64_t product1 = uint64_t{kPhiloxMultiplier1} * x2;
  x0 = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ key0;
  x1 = static_cast<uint32_t>(product1);
  x2 = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ key1;
  x3 = static_cast<uint32_t>(product0);
}

JAXSEC_HOST_DEVICE inline Block philox4x32(Counter counter, Key key) {
  uint32_t x0 = static_cast<uint32_t>(counter.low), x1 = static_cast<uint32_t>(counter.low >> 32);
  uint32_t x2 = static_cast<uint32_t>(counter.high), x3 = static_cast<uint32_t>(counter.high >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(x0, x1, x2, x3, key.low, key.high);
    key.low += kPhiloxWeyl0;
    key.high += kPhiloxWeyl1;
  }
  return Block{{x0, x1, x2, x3}};
}

}  // namespace jaxsec

#endif  // JAXSEC_PHILOX_H_
