// Filling memory with the words of a Philox stream on the CPU.

#ifndef JAXSEC_RANDOM_BITS_H_
#define JAXSEC_RANDOM_BITS_H_

#include <cstddef>
#include <cstdint>

#include "jaxsec/philox.h"

namespace jaxsec {

// Writes `count` words: word i is word i % 4 of philox4x32({first_block + i / 4, 0}, key). The block number wraps modulo 2^64.
// A stream may be cut at any multiple of four words and its pieces made in any order, by any number of threads.
void random_bits(Key key, uint64_t first_block, uint32_t* out, size_t count);

}  // namespace jaxsec

#endif  // JAXSEC_RANDOM_BITS_H_
