// Writes a golden shelf: make_golden OUT. Run by hand when a format version is new, never to make a test pass.

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "store/store.h"
#include "tests/store/golden_shelf.h"

namespace tensorshelf {
namespace {

absl::Status WriteShelf(const std::string& path) {
  absl::Status created = Store::Create(path, {.capacity = kGoldenCapacity, .prefill = Prefill::kNone});
  if (!created.ok()) return created;
  auto store = Store::Open(path, {});
  if (!store.ok()) return store.status();
  for (const auto& [name, object] : GoldenObjects()) {
    if (name == "u8-clone") continue;
    PutItem item{.name = name, .bytes = std::as_bytes(std::span(object.bytes))};
    item.kind = object.tensor ? ObjectKind::kTensor : ObjectKind::kBytes;
    item.dtype = object.dtype;
    item.shape = object.shape;
    item.metadata = object.metadata;
    if (auto put = (*store)->Put(item); !put.ok()) return put.status();
  }
  auto transaction = (*store)->Begin();
  if (!transaction.ok()) return transaction.status();
  transaction->Clone("u8", "u8-clone");
  if (auto done = transaction->Commit(); !done.ok()) return done.status();
  return (*store)->Close();
}

void WritePages(const std::string& data_file, const std::string& text_file) {
  std::ifstream in(data_file, std::ios::binary);
  std::ofstream out(text_file);
  std::string page(4096, '\0');
  for (uint64_t offset = 0; in.read(page.data(), 4096); offset += 4096) {
    if (page.find_first_not_of('\0') == std::string::npos) continue;
    out << offset << ':';
    for (const unsigned char byte : page) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      out << digits;
    }
    out << '\n';
  }
}

}  // namespace
}  // namespace tensorshelf

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::string out = argv[1];
  const absl::Status status = tensorshelf::WriteShelf(out);
  if (!status.ok()) {
    std::cerr << status << '\n';
    return 1;
  }
  tensorshelf::WritePages(out + "/00000001.tsd", out + "/pages.txt");
  for (const char* name : {"00000001.tsd", "index.ballast", "LOCK", "index/LOCK"})
    std::filesystem::remove(out + "/" + name);
  return 0;
}
