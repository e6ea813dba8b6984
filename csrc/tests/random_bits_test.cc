// The vectorised fill against the one-block function, for every size up to three groups, across the 32-bit and 64-bit counter carries.

#include "jaxsec/random_bits.h"

#include <vector>

#include "check.h"

int main() {
  const jaxsec::Key key{0xdeadbeefu, 42u};
  const uint64_t starts[] = {0, 0xfffffff5ull, ~uint64_t{0} - 3};
  constexpr uint32_t kCanary = 0x5eed5eedu;
  for (uint64_t start : starts) {
    for (size_t count = 0; count <= 200; ++count) {
      std::vector<uint32_t> out(count + 1, kCanary);
      jaxsec::random_bits(key, start, out.data(), count);
      for (size_t i = 0; i < count; ++i) {
        CHECK_EQUAL(out[i], jaxsec::philox4x32({start + i / 4, 0}, key).word[i % 4]);
      }
      CHECK_EQUAL(out[count], kCanary);
    }
  }
  return 0;
}
