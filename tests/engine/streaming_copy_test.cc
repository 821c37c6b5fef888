// Goal: every byte arrives and no neighbour is touched, whatever the alignment and the length. Method: all small shifts
// of both sides and lengths around the line size, between guard bytes.

#include "engine/foundation/streaming_copy.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tensorshelf {
namespace {

TEST(StreamingCopy, AnyAlignmentAndLength) {
  constexpr std::byte kGuard{0xee};
  std::mt19937_64 random(1);
  std::vector<std::byte> source(1024);
  for (std::byte& byte : source) byte = static_cast<std::byte>(random());
  for (size_t from = 0; from < 64; from += 7) {
    for (size_t to = 64; to < 128; ++to) {
      for (const size_t length : {0, 1, 15, 63, 64, 65, 127, 128, 129, 500}) {
        std::vector<std::byte> target(768, kGuard);
        StreamingCopy(target.data() + to, source.data() + from, length);
        std::vector<std::byte> expected(768, kGuard);
        std::copy_n(source.begin() + static_cast<ptrdiff_t>(from), length,
                    expected.begin() + static_cast<ptrdiff_t>(to));
        ASSERT_EQ(target, expected) << "from " << from << " to " << to << " length " << length;
      }
    }
  }
}

}  // namespace
}  // namespace tensorshelf
