#include <cstring>

#include "jaxsec/random_bits.h"

// One binary for every x86-64: the loader picks the widest variant that the processor has. The results are integers, so all agree.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(JAXSEC_NO_CLONES)
#define JAXSEC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define JAXSEC_CLONES
#endif

namespace jaxsec {
namespace {

// Blocks that advance together. 16 fills one AVX-512 register per word; narrower machines use several.
constexpr size_t kLanes = 16;

// `kLanes` consecutive blocks, word by word so that the inner loops vectorise, then transposed into stream order.
JAXSEC_CLONES void fill_lanes(Key key, uint64_t first_block, size_t groups, uint32_t* out) {
  for (size_t group = 0; group < groups; ++group) {
    uint32_t x0[kLanes], x1[kLanes], x2[kLanes], x3[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const uint64_t block = first_block + group * kLanes + lane;
      x0[lane] = static_cast<uint32_t>(block);
      x1[lane] = static_cast<uint32_t>(block >> 32);
      x2[lane] = 0;
      x3[lane] = 0;
    }
    Key round_key = key;
    for (int round = 0; round < kPhiloxRounds; ++round) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        philox_round(x0[lane], x1[lane], x2[lane], x3[lane], round_key.low, round_key.high);
      }
      round_key.low += kPhiloxWeyl0;
      round_key.high += kPhiloxWeyl1;
    }
    uint32_t* group_out = out + group * kLanes * 4;
    for (size_t lane = 0; lane < kLanes; ++lane) {
      group_out[4 * lane + 0] = x0[lane];
      group_out[4 * lane + 1] = x1[lane];
      group_out[4 * lane + 2] = x2[lane];
      group_out[4 * lane + 3] = x3[lane];
    }
  }
}

}  // namespace

void random_bits(Key key, uint64_t first_block, uint32_t* out, size_t count) {
  const size_t groups = count / (4 * kLanes);
  fill_lanes(key, first_block, groups, out);
  for (size_t done = groups * 4 * kLanes; done < count; done += 4) {
    const Block block = philox4x32(Counter{first_block + done / 4, 0}, key);
    std::memcpy(out + done, block.word, sizeof(uint32_t) * (count - done < 4 ? count - done : 4));
  }
}

}  // namespace jaxsec
