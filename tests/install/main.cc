// What a C++ program without torch does with an installed tensorshelf: make a shelf, put a tensor, get it back.

#include <cstdio>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "store/dtype.h"
#include "store/store.h"

namespace {

using tensorshelf::Store;

absl::Status PutAndGet(const char* path) {
  absl::Status created = Store::Create(path, {.capacity = uint64_t{16} << 20});
  if (!created.ok()) return created;
  auto store = Store::Open(path, {});
  if (!store.ok()) return store.status();

  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  auto put = (*store)->Put({.name = "w",
                            .dtype = tensorshelf::FindDtypeByName("float32")->number,
                            .shape = {2, 3},
                            .bytes = std::as_bytes(std::span(weights))});
  if (!put.ok()) return put.status();

  auto object = (*store)->Find("w");
  if (!object.ok()) return object.status();
  std::vector<float> read(weights.size());
  const tensorshelf::ReadRequest request = {.object = &*object, .to = std::as_writable_bytes(std::span(read))};
  absl::Status status = (*store)->Read(std::span(&request, 1), {});
  if (!status.ok()) return status;
  if (read != weights) return absl::DataLossError("other values came back");
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
