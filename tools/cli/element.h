// Stored elements as numbers and as text: every dtype of store/dtype.h, the small floats included. Pure functions.

#ifndef TENSORSHELF_TOOLS_CLI_ELEMENT_H_
#define TENSORSHELF_TOOLS_CLI_ELEMENT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tensorshelf::cli {

enum class ElementKind { kSigned, kUnsigned, kFloat, kComplex, kBool };

// How the elements of one dtype lie in memory.
struct ElementType {
  uint16_t dtype = 0;
  ElementKind kind = ElementKind::kUnsigned;
  uint32_t item_bytes = 1;
  uint32_t per_item = 1;  // 2: two 4-bit floats a byte, the low half first
};

// Absent: an unknown dtype. Bit types of less than a byte are shown byte by byte.
std::optional<ElementType> FindElementType(uint16_t dtype);

// The shape in elements: as stored, but that of packed types in its last dimension, or in one of its own.
std::vector<uint64_t> ElementShape(const ElementType& type, const std::vector<uint64_t>& shape);

// The number at `item`; `part` < per_item. Of complex ones the magnitude. Integers beyond 2^53 are rounded.
double ElementValue(const ElementType& type, const std::byte* item, uint32_t part);

// Shortest text that tells the value from its neighbours of the same type: "1.5", "-inf", "nan", "True", "1+2j".
std::string ElementText(const ElementType& type, const std::byte* item, uint32_t part);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_ELEMENT_H_
