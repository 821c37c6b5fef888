// Keeps the weights of a small network in a shelf, from C++ with libtorch:
//
//   perceptron /nvme/example.shelf     makes the shelf, stores random weights in one commit, closes it, opens it again,
//                                      and computes with the weights that come back and with a slice of them

#include <ATen/ATen.h>

#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/foundation/status_macros.h"
#include "python/libtorch/slice_read.h"
#include "python/libtorch/tensor_io.h"
#include "store/store.h"

namespace {

using tensorshelf::Store;
using Weights = std::vector<std::pair<std::string, at::Tensor>>;

at::Tensor Forward(const at::Tensor& input, const at::Tensor& first, const at::Tensor& second) {
  return at::linear(at::relu(at::linear(input, first)), second);
}

// All of them are there after a crash, or none.
absl::Status Save(Store& store, const Weights& weights) {
  std::vector<tensorshelf::PutItem> items;
  std::vector<at::Tensor> plain;  // what the items point to
  for (const auto& [name, tensor] : weights) {
    TS_RETURN_IF_ERROR(tensorshelf::CheckStorable(tensor));
    plain.push_back(tensorshelf::PlainTensor(tensor));
    items.emplace_back().name = name;
    tensorshelf::DescribeTensor(plain.back(), &items.back());
  }
  return store.Put(items).status();
}

absl::Status Compare(Store& store, const Weights& weights) {
  const std::vector<std::string> names = {"first", "second"};
  TS_ASSIGN_OR_RETURN(const std::vector<tensorshelf::Object> objects, store.FindMany(names));
  TS_ASSIGN_OR_RETURN(const std::vector<at::Tensor> read, tensorshelf::ReadTensors(store, objects, {}));
  const at::Tensor input = at::rand({3, 256});
  const at::Tensor expected = Forward(input, weights[0].second, weights[1].second);
  if (!at::equal(Forward(input, read[0], read[1]), expected)) return absl::DataLossError("another result came out");

  // Rows 10 to 20 of the first layer: no other bytes are read than those of the checksum blocks they lie in.
  const tensorshelf::IndexItem range = {.start = 10, .stop = 20};
  TS_ASSIGN_OR_RETURN(const tensorshelf::SlicePlan plan,
                      tensorshelf::PlanSlice(objects[0].record().shape, sizeof(float), {&range, 1}));
  const tensorshelf::SliceRequest request = {.object = &objects[0], .plan = plan, .out = {}};
  TS_ASSIGN_OR_RETURN(
      const std::vector<at::Tensor> rows,
      tensorshelf::ReadSlices(*store.memory_pool(), {&request, 1},
                              [&](std::span<const tensorshelf::ReadRequest> reads) { return store.Read(reads, {}); }));
  if (!at::equal(rows[0], weights[0].second.slice(0, 10, 20))) return absl::DataLossError("other rows came out");
  return absl::OkStatus();
}

absl::Status Run(const std::string& path) {
  const Weights weights = {{"first", at::rand({1024, 256})}, {"second", at::rand({10, 1024})}};
  tensorshelf::CreateOptions options;
  options.capacity = uint64_t{64} << 20;  // bytes
  TS_RETURN_IF_ERROR(Store::Create(path, options));
  {
    TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(path, {}));
    TS_RETURN_IF_ERROR(Save(*store, weights));
    TS_RETURN_IF_ERROR(store->Close());
  }
  TS_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, Store::Open(path, {}));
  TS_RETURN_IF_ERROR(Compare(*store, weights));
  return store->Close();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s SHELF\n", argv[0]);
    return 2;
  }
  const absl::Status status = Run(argv[1]);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  std::puts("The network from the shelf gives the same result.");
  return 0;
}
