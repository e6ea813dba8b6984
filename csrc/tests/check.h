// The macros the tests need: unlike assert they are alive in release builds, and CHECK_EQUAL shows the two values.

#ifndef JAXSEC_TESTS_CHECK_H_
#define JAXSEC_TESTS_CHECK_H_

#include <cstdlib>
#include <iostream>

#define CHECK_EQUAL(got, wanted)                                                                            \
  do {                                                                                                      \
    const auto got_value = (got);                                                                           \
    const auto wanted_value = (wanted);                                                                     \
    if (!(got_value == wanted_value)) {                                                                     \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " #got " is " << std::hex << got_value << ", not " << wanted_value << "\n"; \
      std::exit(1);                                                                                         \
    }                                                                                                       \
  } while (false)

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      std::cerr << __FILE__ << ":" << __LINE__ << ": " #condition " is false\n"; \
      std::exit(1);                                                             \
    }                                                                           \
  } while (false)

#endif  // JAXSEC_TESTS_CHECK_H_
