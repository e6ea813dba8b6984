// The one macro the tests need: unlike assert it is alive in release builds and shows the two values.

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

#endif  // JAXSEC_TESTS_CHECK_H_
