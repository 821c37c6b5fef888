// EXPECT and ASSERT for absl statuses, with the message in the failure.

#ifndef TENSORSHELF_TESTS_TESTING_STATUS_MATCHERS_H_
#define TENSORSHELF_TESTS_TESTING_STATUS_MATCHERS_H_

#include <gtest/gtest.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorshelf::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

inline ::testing::AssertionResult IsOk(const absl::Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << status.ToString();
}

// The code is `code` and the message contains `text`.
inline ::testing::AssertionResult Fails(const absl::Status& status, absl::StatusCode code,
                                        const std::string& text = "") {
  if (status.code() == code && std::string(status.message()).find(text) != std::string::npos) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "got " << status.ToString() << ", wanted " << absl::StatusCodeToString(code)
                                       << " with \"" << text << "\"";
}

}  // namespace tensorshelf::testing

#define EXPECT_OK(expression) EXPECT_TRUE(::tensorshelf::testing::IsOk(::tensorshelf::testing::StatusOf(expression)))
#define ASSERT_OK(expression) ASSERT_TRUE(::tensorshelf::testing::IsOk(::tensorshelf::testing::StatusOf(expression)))
#define EXPECT_FAILS(expression, code, text) \
  EXPECT_TRUE(::tensorshelf::testing::Fails(::tensorshelf::testing::StatusOf(expression), code, text))

#define TS_TEST_CONCAT_INNER_(a, b) a##b
#define TS_TEST_CONCAT_(a, b) TS_TEST_CONCAT_INNER_(a, b)
#define ASSERT_OK_AND_ASSIGN(declaration, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL_(TS_TEST_CONCAT_(ts_test_or_, __LINE__), declaration, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL_(name, declaration, expression) \
  auto name = (expression);                                       \
  ASSERT_OK(name);                                                \
  declaration = std::move(name).value()

#endif  // TENSORSHELF_TESTS_TESTING_STATUS_MATCHERS_H_
