// What the tests of kernels feed them.

#ifndef JAXSEC_TESTS_RANDOM_H_
#define JAXSEC_TESTS_RANDOM_H_

#include <cstdint>
#include <random>
#include <vector>

// n normal values.
inline std::vector<float> Random(std::mt19937& engine, int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& v : out) v = normal(engine);
  return out;
}

#endif  // JAXSEC_TESTS_RANDOM_H_
