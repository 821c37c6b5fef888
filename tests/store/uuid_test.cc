// Goal: uuids are random, marked as version 4, and survive their text form. Method: many of them, and texts with one
// fault.

#include "store/uuid.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

TEST(Uuid, RandomOnesDifferAndRoundTrip) {
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_OK_AND_ASSIGN(const Uuid uuid, RandomUuid());
    const std::string text = UuidText(uuid);
    EXPECT_EQ(text[14], '4');
    EXPECT_NE(std::string("89ab").find(text[19]), std::string::npos) << text;
    ASSERT_OK_AND_ASSIGN(const Uuid parsed, ParseUuid(text));
    EXPECT_EQ(parsed, uuid);
    EXPECT_TRUE(seen.insert(text).second);
  }
}

TEST(Uuid, TextForm) {
  const Uuid uuid = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10};
  EXPECT_EQ(UuidText(uuid), "01234567-89ab-cdef-fedc-ba9876543210");
  ASSERT_OK_AND_ASSIGN(const Uuid upper, ParseUuid("01234567-89AB-CDEF-FEDC-BA9876543210"));
  EXPECT_EQ(upper, uuid);
}

TEST(Uuid, OtherTextsAreRefused) {
  for (const char* text : {"", "01234567-89ab-cdef-fedc-ba987654321", "01234567-89ab-cdef-fedc-ba98765432100",
                           "01234567089ab-cdef-fedc-ba9876543210", "01234567-89ab-cdef-fedc-ba987654321g",
                           "0123456-789ab-cdef-fedc-ba9876543210", " 1234567-89ab-cdef-fedc-ba9876543210"}) {
    EXPECT_FAILS(ParseUuid(text), absl::StatusCode::kInvalidArgument, text);
  }
}

}  // namespace
}  // namespace tensorshelf
