// How long a long test is and where its random numbers begin: the one place that both come from.
//
// The environment may say otherwise than the test: TENSORSHELF_TEST_SCALE is a factor on every count that goes through
// Scaled (10: ten times as many), TENSORSHELF_TEST_SEED the number that Seed gives instead of the usual one. A failure
// tells its seed; a run that begins with it meets the same failure first. `tools/prove` sets both, and reads what
// ReportTried wrote from the JSON of the test program.

#ifndef TENSORSHELF_TESTS_TESTING_SCALE_H_
#define TENSORSHELF_TESTS_TESTING_SCALE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>

namespace tensorshelf::testing {

// How much smaller a long test makes itself in a sanitized program, which runs many times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kScaleDown = 10;
#else
inline constexpr int kScaleDown = 1;
#endif

inline double Scale() {
  const char* const text = std::getenv("TENSORSHELF_TEST_SCALE");
  const double scale = text == nullptr ? 1 : std::strtod(text, nullptr);
  return (scale > 0 ? scale : 1) / kScaleDown;
}

// `count` of something that may be more or fewer; never none.
inline uint64_t Scaled(uint64_t count) {
  return std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(count) * Scale() + 0.5));
}

inline uint64_t Seed(uint64_t usual) {
  const char* const text = std::getenv("TENSORSHELF_TEST_SEED");
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

// What the running test has tried, and the seed that it began with.
inline void ReportTried(uint64_t tried, uint64_t seed) {
  ::testing::Test::RecordProperty("tried", std::to_string(tried));
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
}

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_SCALE_H_
