// What a C++ program with libtorch does with an installed tensorshelf: put an at::Tensor, get an equal one back.

#include <ATen/ATen.h>

#include <cstdio>

#include "absl/status/status.h"
#include "python/libtorch/tensor_io.h"
#include "store/store.h"

namespace {

absl::Status PutAndGet(const char* path) {
  absl::Status created = tensorshelf::Store::Create(path, {.capacity = uint64_t{16} << 20});
  if (!created.ok()) return created;
  auto store = tensorshelf::Store::Open(path, {});
  if (!store.ok()) return store.status();

  const at::Tensor tensor = at::arange(12, at::kBFloat16).reshape({3, 4}).t();
  auto put = tensorshelf::PutTensor(**store, "w", tensor);
  if (!put.ok()) return put.status();
  auto read = tensorshelf::GetTensor(**store, "w");
  if (!read.ok()) return read.status();
  if (!at::equal(tensor, *read)) return absl::DataLossError("other values came back");
  return (*store)->Close();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 2;
  }
  const absl::Status status = PutAndGet(argv[1]);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
