// Goal: batches, commits, scans, snapshots and reopens agree with a plain map, whatever their order.
// Method: seeded random steps against std::map; the seed and the step are in every failure message.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "index/index.h"
#include "index/record_codec.h"
#include "tests/index/temporary_index.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::InlineRecord;
using testing::NameOf;
using testing::Reopen;
using testing::SmallRecord;
using testing::TemporaryDirectory;

struct Object {
  ObjectRecord record;
  std::optional<std::string> payload;  // inline
};
struct State {
  std::map<std::string, NameRow> names;
  std::map<uint64_t, Object> objects;  // each has at least one name
};

class ModelRun {
 public:
  explicit ModelRun(uint64_t seed) : random_(seed) {
    options_.memtable_bytes = 256 << 10;   // so that rows reach files, too
    options_.record_cache_bytes = 200000;  // so that entries are dropped
  }

  void Run(int steps) {
    auto opened = Index::Open(path_, Index::Mode::kCreate, options_);
    ASSERT_OK(opened);
    index_ = *std::move(opened);
    for (int step = 0; step < steps; ++step) {
      SCOPED_TRACE(absl::StrCat("step ", step));
      Commit();
      Lookups(state_, nullptr);
      if (Chance(20)) Scan(state_, nullptr);
      if (Chance(10)) TakeSnapshot();
      if (Chance(10)) CheckSnapshot();
      if (Chance(15)) {
        ASSERT_OK(index_->Flush());
      }
      if (Chance(25)) {
        snapshot_.reset();
        ASSERT_OK(Reopen(index_, path_, options_));
        Scan(state_, nullptr);
      }
      if (::testing::Test::HasFailure()) return;
    }
  }

 private:
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  bool Chance(uint64_t one_in) { return Below(one_in) == 0; }
  std::string SomeName() { return absl::StrCat(Below(2) == 0 ? "a/" : "b/", Below(40)); }

  void Drop(CommitBatch& batch, State& state, const std::string& name) {
    const uint64_t generation = state.names.at(name).generation;
    state.names.erase(name);
    batch.DeleteName(name);
    for (const auto& [other, row] : state.names) {
      if (row.generation == generation) return;
    }
    if (Chance(2)) {
      batch.DeleteObject(generation);
    } else {
      batch.DeleteObject(state.objects.at(generation).record);
    }
    state.objects.erase(generation);
  }

  void PutNew(CommitBatch& batch, State& state, const std::string& name) {
    if (state.names.contains(name)) Drop(batch, state, name);
    const uint64_t generation = ++last_generation_;
    Object object;
    if (Chance(3)) {
      object.payload = std::string(Below(100), static_cast<char>(generation));
      object.record = InlineRecord(generation, object.payload->size());
      EXPECT_OK(batch.PutInlineObject(object.record, BytesOf(*object.payload)));
    } else {
      object.record = SmallRecord(generation);
      EXPECT_OK(batch.PutObject(object.record, {}));
    }
    const NameRow row{.flags = object.payload ? NameRow::kInline : uint8_t{0}, .generation = generation, .tlvs = {}};
    batch.PutName(name, row);
    state.names[name] = row;
    state.objects[generation] = object;
  }

  // One request of a commit: a put, a delete, a clone, a rename or a move.
  void Request(CommitBatch& batch, State& state) {
    const std::string name = SomeName();
    const auto found = state.names.find(name);
    const uint64_t kind = Below(6);
    if (kind <= 1 || found == state.names.end()) {
      PutNew(batch, state, name);
    } else if (kind == 2) {
      Drop(batch, state, name);
    } else if (kind == 3 || kind == 4) {
      const std::string target = SomeName();
      if (state.names.contains(target)) return;
      const NameRow row = found->second;
      batch.PutName(target, row);
      state.names[target] = row;
      if (kind == 4) Drop(batch, state, name);
    } else if (Object& object = state.objects.at(found->second.generation); !object.payload) {
      ++object.record.place_seq;
      object.record.columns[0][0].first_unit += 1000;
      EXPECT_OK(batch.PutObject(object.record, {}));
    }
  }

  void Commit() {
    auto batch = index_->NewBatch();
    State state = state_;
    for (uint64_t requests = 1 + Below(8); requests > 0; --requests) {
      const bool refused = Chance(4);
      const State before = state;
      batch->SetSavePoint();
      for (uint64_t parts = 1 + Below(3); parts > 0; --parts) Request(*batch, state);
      if (refused) {
        batch->RollbackToSavePoint();
        state = before;
      } else {
        batch->DropSavePoint();
      }
    }
    const std::string name = SomeName();
    ASSERT_OK_AND_ASSIGN(const auto row, batch->FindName(name));
    EXPECT_EQ(row.has_value(), state.names.contains(name)) << name;
    if (row) {
      EXPECT_EQ(*row, state.names.at(name));
    }
    std::vector<std::pair<std::string, NameRow>> seen;
    ASSERT_OK(batch->ScanNames("a/", [&](const std::string& found, const NameRow& found_row) {
      seen.emplace_back(found, found_row);
      return true;
    }));
    EXPECT_EQ(seen, Matching(state, "a/"));
    if (Chance(8)) return;  // a group that was given up
    ASSERT_OK(index_->Commit(*batch, ++commit_));
    state_ = std::move(state);
  }

  static std::vector<std::pair<std::string, NameRow>> Matching(const State& state, const std::string& prefix) {
    std::vector<std::pair<std::string, NameRow>> rows;
    for (const auto& [name, row] : state.names) {
      if (name.starts_with(prefix)) rows.emplace_back(name, row);
    }
    return rows;
  }

  void Lookups(const State& state, const IndexSnapshot* snapshot) {
    for (int i = 0; i < 20; ++i) {
      const std::string name = SomeName();
      const auto found = index_->FindObject(name, snapshot);
      if (!state.names.contains(name)) {
        EXPECT_FAILS(found, absl::StatusCode::kNotFound, name);
        continue;
      }
      ASSERT_OK(found);
      const uint64_t generation = state.names.at(name).generation;
      const Object& object = state.objects.at(generation);
      EXPECT_EQ(found->generation, generation);
      EXPECT_EQ(*found->record, object.record);
      EXPECT_EQ(found->payload != nullptr, object.payload.has_value());
      if (object.payload && found->payload != nullptr) {
        EXPECT_EQ(*found->payload, *object.payload);
      }
    }
  }

  void Scan(const State& state, const IndexSnapshot* snapshot) {
    for (const char* prefix : {"", "b/"}) {
      std::vector<std::pair<std::string, NameRow>> seen;
      ASSERT_OK(index_->ScanNames(
          prefix, "",
          [&](const std::string& name, const NameRow& row) {
            seen.emplace_back(name, row);
            return true;
          },
          snapshot));
      EXPECT_EQ(seen, Matching(state, prefix));
    }
    if (snapshot != nullptr) return;
    std::vector<uint64_t> generations, expected;
    ASSERT_OK(index_->ScanObjects(0, UINT64_MAX, [&](uint64_t generation, std::span<const std::byte> bytes) {
      generations.push_back(generation);
      EXPECT_EQ(DecodeRecord(bytes).value(), state.objects.at(generation).record);
      return true;
    }));
    for (const auto& [generation, object] : state.objects) {
      if (!object.payload) expected.push_back(generation);
    }
    EXPECT_EQ(generations, expected);
    EXPECT_EQ(index_->ReadCommit()->commit, commit_);
  }

  void TakeSnapshot() {
    snapshot_ = index_->NewSnapshot();
    snapshot_state_ = state_;
    EXPECT_EQ(snapshot_->commit(), commit_);
  }
  void CheckSnapshot() {
    if (snapshot_ == nullptr) return;
    Lookups(snapshot_state_, snapshot_.get());
    Scan(snapshot_state_, snapshot_.get());
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_.File("index");
  std::mt19937_64 random_;
  IndexOptions options_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<IndexSnapshot> snapshot_;
  State snapshot_state_;
  State state_;
  uint64_t commit_ = 0;
  uint64_t last_generation_ = 0;
};

class IndexModelTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(IndexModelTest, AgreesWithAMap) {
  const uint64_t seed = testing::Seed(1) + GetParam();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  testing::ReportTried(1, seed);
  ModelRun(seed).Run(400);
}

INSTANTIATE_TEST_SUITE_P(Seeds, IndexModelTest, ::testing::Range<uint64_t>(0, testing::Scaled(4)));

}  // namespace
}  // namespace tensorshelf
