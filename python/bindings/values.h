// Python values that can be stored, and results on their way back. Everything here needs the interpreter lock.

#ifndef TENSORSHELF_PYTHON_BINDINGS_VALUES_H_
#define TENSORSHELF_PYTHON_BINDINGS_VALUES_H_

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "store/store.h"

namespace tensorshelf {

// The bytes of an object with the buffer protocol (bytes, bytearray, memoryview), which stay where they are while this
// lives. Movable; made and destroyed with the interpreter lock.
class BufferBytes {
 public:
  explicit BufferBytes(pybind11::handle object);  // throws TypeError, BufferError
  BufferBytes(BufferBytes&& other) noexcept;
  BufferBytes& operator=(BufferBytes&&) = delete;
  ~BufferBytes();

  std::span<const std::byte> bytes() const;

 private:
  Py_buffer view_{};
};

// A value to be stored: a tensor, or bytes.
struct StoredValue {
  at::Tensor tensor;                 // undefined: bytes
  std::span<const std::byte> bytes;  // of a BufferBytes that the caller keeps

  uint64_t size_bytes() const { return tensor.defined() ? tensor.nbytes() : bytes.size(); }
};

// The values of one call and what keeps their bytes in place.
struct StoredValues {
  std::vector<std::string> names;
  std::vector<StoredValue> values;
  std::vector<BufferBytes> buffers;

  uint64_t size_bytes() const;
};

// `names` are str, `values` tensors or bytes-like. Throws UnsupportedTensorError naming name and property, TypeError,
// UnicodeEncodeError (a ValueError), before anything is stored.
StoredValues ParseValues(const pybind11::list& names, const pybind11::list& values);

// The value in memory of its own, from `pool` where that pays: a plain tensor, or bytes. Lets go of the lock while
// copying.
pybind11::object CopyOf(MemoryPool& pool, const pybind11::object& value);

// UTF-8. Throws TypeError for what is not a str.
std::string NameFrom(pybind11::handle name);
std::vector<std::string> NamesFrom(const pybind11::list& names);

// Throws TypeError unless `object` is a torch.Tensor; `what` names it.
const at::Tensor& TensorFrom(pybind11::handle object, const char* what);
bool IsTensor(pybind11::handle object);
pybind11::object ToPython(at::Tensor tensor);

// Holds back the cyclic garbage collector while many objects are made, which it would go through again and again.
// Nothing but making objects may happen meanwhile, under one hold of the lock.
class CollectorPause {
 public:
  CollectorPause() : was_enabled_(PyGC_Disable() != 0) {}
  CollectorPause(const CollectorPause&) = delete;
  CollectorPause& operator=(const CollectorPause&) = delete;
  ~CollectorPause() {
    if (was_enabled_) PyGC_Enable();
  }

 private:
  const bool was_enabled_;
};

// A new bytes object of that size, uninitialised, and its memory.
pybind11::bytes NewBytes(uint64_t size);
std::span<std::byte> MemoryOf(const pybind11::bytes& bytes);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_VALUES_H_
