// Known answers of Philox4x32-10: the three lines "philox4x32 10" of tests/kat_vectors in the Random123 distribution (v1.14.0).

#include "jaxsec/philox.h"

#include "check.h"

struct Answer {
  uint32_t counter[4], key[2], words[4];
};

constexpr Answer kAnswers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

int main() {
  for (const Answer& answer : kAnswers) {
    const uint32_t* c = answer.counter;
    const jaxsec::Counter counter{uint64_t{c[1]} << 32 | c[0], uint64_t{c[3]} << 32 | c[2]};
    const jaxsec::Block block = jaxsec::philox4x32(counter, {answer.key[0], answer.key[1]});
    for (int i = 0; i < 4; ++i) CHECK_EQUAL(block.word[i], answer.words[i]);
  }
  return 0;
}
