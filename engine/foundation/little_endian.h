// Fixed-width integers to and from bytes. Everything on disk is little-endian unless a format table says BE; BE is used
// only in RocksDB keys, where byte order must equal numeric order.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_LITTLE_ENDIAN_H_
#define TENSORSHELF_ENGINE_FOUNDATION_LITTLE_ENDIAN_H_

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

namespace tensorshelf {

static_assert(std::endian::native == std::endian::little,
              "the format is little-endian; a big-endian host needs swaps here");

template <std::unsigned_integral T>
void StoreLittle(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

template <std::unsigned_integral T>
T LoadLittle(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Appends to a string that it does not own. Thread-compatible.
class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(out) {}

  template <std::unsigned_integral T>
  void Little(T value) {
    out_->append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <std::unsigned_integral T>
  void Big(T value) {
    for (int shift = 8 * (sizeof value - 1); shift >= 0; shift -= 8) out_->push_back(static_cast<char>(value >> shift));
  }
  void Bytes(std::span<const std::byte> bytes) {
    out_->append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void Zeros(size_t count) { out_->append(count, '\0'); }

 private:
  std::string* out_;
};

// Reads from the front of a span. Every read is checked: nullopt means that too few bytes are left, and nothing was
// consumed. Thread-compatible.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <std::unsigned_integral T>
  std::optional<T> Little() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    const T value = LoadLittle<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  template <std::unsigned_integral T>
  std::optional<T> Big() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    T value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>((value << 8) | static_cast<uint8_t>(rest_[i]));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  std::optional<std::span<const std::byte>> Bytes(size_t count) {
    if (rest_.size() < count) return std::nullopt;
    const auto taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::span<const std::byte> rest() const { return rest_; }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_LITTLE_ENDIAN_H_
