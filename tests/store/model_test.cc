// Random sequences of operations against a std::map: after each the store answers as the map says, and at the end holds
// the same bytes, also after a reopen. A failing sequence is made as short as it gets and printed.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

constexpr uint64_t kCapacity = uint64_t{8} << 20;

// One store for many sequences: a sequence begins by emptying it, which is a test too.
class ModelTest : public StoreFixture {
 protected:
  ModelTest() {
    if (::access("/dev/shm", W_OK) == 0) {  // syncs cost nothing there
      std::filesystem::remove_all(root_);
      std::string pattern = "/dev/shm/tensorshelf_model.XXXXXX";
      root_ = mkdtemp(pattern.data());
      path_ = root_ + "/shelf";
    }
    options_.staging_bytes = 2 << 20;
    options_.result_pool_bytes = 4 << 20;
    options_.page_locked = false;
    options_.background_fill = false;
    options_.io.worker_count = 1;
    options_.io.io_size = 256 << 10;
    options_.index.memtable_bytes = 64 << 10;
  }

  static ModelChoices Choices() {
    return {.names = {"a/0", "a/1", "a/2", "aa/0", "aa/1", "b/0", "b/1", "c"},
            .prefixes = {"a", "a/", "aa", "b/", "c"},
            .size_max = 2500000,  // eight names and a view: full happens
            .ephemeral = true,
            .reopen = true};
  }

  // Empty, or what went wrong and where.
  std::string RunSequence(const std::vector<ModelOp>& ops, uint64_t seed) {
    {
      auto transaction = store_->Begin();
      if (!transaction.ok()) return transaction.status().ToString();
      transaction->DeletePrefix("");
      if (const auto emptied = transaction->Commit(); !emptied.ok()) return emptied.status().ToString();
    }
    Model model;
    std::mt19937_64 random(seed);
    std::unique_ptr<View> view;
    Model viewed;
    for (size_t i = 0; i < ops.size(); ++i) {
      const std::string where = absl::StrCat("op ", i, ": ");
      if (ops[i].kind == ModelOp::Kind::kReopen) view.reset();
      if (view != nullptr && random() % 4 == 0) {
        if (const std::string problem = CheckView(*view, viewed); !problem.empty()) return where + "view: " + problem;
        view.reset();
      } else if (view == nullptr && random() % 10 == 0 && ops[i].kind != ModelOp::Kind::kReopen) {
        auto made = store_->NewView();
        if (!made.ok()) return where + made.status().ToString();
        view = *std::move(made);
        viewed = Durable(model);
      }
      Model after = model;
      const absl::StatusCode expected = Apply(after, ops[i]);
      const absl::Status status = Step(ops[i]);
      const bool full = KindOf(status) == ErrorKind::kFull;
      if (full && (Bytes(model) + Bytes(ops[i]) > kCapacity / 2 || view != nullptr)) {
        ++full_count_;
      } else if (status.code() != expected) {
        return absl::StrCat(where, status.ToString(), " instead of ", absl::StatusCodeToString(expected));
      } else {
        model = std::move(after);
      }
      if (const std::string problem = CheckOne(model, random); !problem.empty()) return where + problem;
    }
    if (const std::string problem = Difference(*store_, model); !problem.empty()) return "at the end: " + problem;
    if (view != nullptr) {
      if (const std::string problem = CheckView(*view, viewed); !problem.empty()) return "last view: " + problem;
      view.reset();
    }
    return SpaceProblem(*store_);
  }

  absl::Status Step(const ModelOp& op) {
    if (op.kind != ModelOp::Kind::kReopen) return Apply(*store_, op);
    const absl::Status closed = store_->Close();
    store_.reset();
    auto opened = Store::Open(path_, options_);
    if (!opened.ok()) return opened.status();
    store_ = *std::move(opened);
    return closed;
  }

  // One name: whole, and a range of it.
  std::string CheckOne(const Model& model, std::mt19937_64& random) {
    const ModelChoices choices = Choices();
    const std::string& name = choices.names[random() % choices.names.size()];
    auto object = store_->Find(name);
    const auto expected = model.find(name);
    if (expected == model.end()) return absl::IsNotFound(object.status()) ? "" : name + " is there";
    if (!object.ok()) return object.status().ToString();
    if (object->ephemeral() != expected->second.ephemeral) return name + " is (not) ephemeral";
    const std::string bytes = expected->second.bytes();
    if (object->size_bytes() != bytes.size()) return absl::StrCat(name, " has ", object->size_bytes(), " bytes");
    const size_t offset = bytes.empty() ? 0 : random() % bytes.size();
    std::string range(bytes.empty() ? 0 : random() % (bytes.size() - offset + 1), '\0');
    const ReadRequest request{.object = &*object, .offset = offset, .to = Span(range)};
    const absl::Status read = store_->Read({&request, 1}, {.verify = random() % 3 != 0});
    if (!read.ok()) return read.ToString();
    return range == bytes.substr(offset, range.size()) ? "" : absl::StrCat(name, ": other bytes at ", offset);
  }

  std::string CheckView(const View& view, const Model& viewed) {
    Model seen;
    const absl::Status scanned = store_->Scan(
        "", "", [&](const std::string& name, uint64_t) { return seen.emplace(name, ModelValue{}).second; }, &view);
    if (!scanned.ok()) return scanned.ToString();
    if (seen.size() != viewed.size()) return absl::StrCat(seen.size(), " names, not ", viewed.size());
    for (const auto& [name, value] : viewed) {
      auto object = store_->Find(name, &view);
      if (!object.ok()) return object.status().ToString();
      if (ReadAll(*object) != value.bytes()) return name + ": other bytes";
    }
    return "";
  }

  static uint64_t Bytes(const Model& model) {
    uint64_t sum = 0;
    for (const auto& [name, value] : model) sum += value.size;
    return sum;
  }
  static uint64_t Bytes(const ModelOp& op) {
    uint64_t sum = op.value.size;
    for (const ModelOp& part : op.parts) sum += Bytes(part);
    return sum;
  }

  // Leaves out whatever is not needed for the failure.
  std::vector<ModelOp> Shrink(std::vector<ModelOp> ops, uint64_t seed) {
    for (size_t piece = ops.size() / 2; piece > 0; piece /= 2) {
      for (size_t at = 0; at + piece <= ops.size();) {
        std::vector<ModelOp> fewer = ops;
        fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(at), fewer.begin() + static_cast<ptrdiff_t>(at + piece));
        Restart();
        if (RunSequence(fewer, seed).empty()) {
          at += piece;
        } else {
          ops = std::move(fewer);
        }
      }
    }
    return ops;
  }

  void Restart() {
    store_.reset();
    std::filesystem::remove_all(path_);
    Create(kCapacity);
    Open();
  }

  void RunSeeds(uint64_t first, uint64_t count) {
    Restart();
    testing::ReportTried(count, first);
    for (uint64_t seed = first; seed < first + count; ++seed) {
      std::mt19937_64 random(seed);
      std::vector<ModelOp> ops;
      for (int i = 0; i < 60; ++i) ops.push_back(RandomOp(random, Choices()));
      const std::string problem = RunSequence(ops, seed);
      if (problem.empty()) continue;
      ops = Shrink(std::move(ops), seed);
      Restart();
      const std::string short_problem = RunSequence(ops, seed);
      std::string text;
      for (const ModelOp& op : ops) absl::StrAppend(&text, "\n  ", Describe(op));
      FAIL() << "seed " << seed << ": " << problem << "\nshortened: " << short_problem << text;
    }
  }

  uint64_t full_count_ = 0;
};

TEST_F(ModelTest, FirstHalf) {
  const uint64_t count = testing::Scaled(250);
  RunSeeds(testing::Seed(1), count);
  if (count > 20) {
    EXPECT_GT(full_count_, 0u) << "the store was never full";
  }
}
TEST_F(ModelTest, SecondHalf) { RunSeeds(testing::Seed(1) + testing::Scaled(250), testing::Scaled(250)); }

}  // namespace
}  // namespace tensorshelf
