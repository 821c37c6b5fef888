// How much smaller a long test makes itself in a sanitized program, which runs many times slower.

#ifndef TENSORSHELF_TESTS_TESTING_SCALE_H_
#define TENSORSHELF_TESTS_TESTING_SCALE_H_

namespace tensorshelf::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kScaleDown = 10;
#else
inline constexpr int kScaleDown = 1;
#endif

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_SCALE_H_
