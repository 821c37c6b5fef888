#include "engine/foundation/streaming_copy.h"

#include <algorithm>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tensorshelf {

#if defined(__SSE2__)

void StreamingCopy(std::byte* to, const std::byte* from, uint64_t length) {
  constexpr uint64_t kLine = 64;  // bytes of a cache line: written whole, it is not fetched
  const uint64_t head = std::min<uint64_t>((kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine, length);
  if (head > 0) std::memcpy(to, from, head);
  const uint64_t lines_end = head + (length - head) / kLine * kLine;
  for (uint64_t at = head; at < lines_end; at += kLine) {
    const auto* source = reinterpret_cast<const __m128i*>(from + at);
    auto* target = reinterpret_cast<__m128i*>(to + at);
    const __m128i first = _mm_loadu_si128(source);
    const __m128i second = _mm_loadu_si128(source + 1);
    const __m128i third = _mm_loadu_si128(source + 2);
    const __m128i fourth = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, first);
    _mm_stream_si128(target + 1, second);
    _mm_stream_si128(target + 2, third);
    _mm_stream_si128(target + 3, fourth);
  }
  _mm_sfence();  // these stores are not ordered with later ones otherwise
  if (lines_end < length) std::memcpy(to + lines_end, from + lines_end, length - lines_end);
}

#else

void StreamingCopy(std::byte* to, const std::byte* from, uint64_t length) {
  if (length > 0) std::memcpy(to, from, length);
}

#endif

}  // namespace tensorshelf
