// Objects move to other extents while others use the store. Moves are made of every kind of layout, beside readers,
// views, puts and deletes, on damaged bytes and on devices that fail; content and accounting must not change.

#include "store/move.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "store/layout.h"
#include "store/salvage.h"
#include "store/verify.h"
#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

class MoveTest : public StoreFixture {
 protected:
  MoveTest() {
    options_.staging_bytes = 4 << 20;
    options_.page_locked = false;
    options_.background_fill = false;
  }

  MoveResult Move(const std::string& name, std::optional<uint32_t> file_id = std::nullopt) {
    const MoveRequest request{.name = name, .file_id = file_id};
    auto results = store_->Move({&request, 1});
    EXPECT_OK(results);
    return results.ok() ? (*results)[0] : MoveResult{MoveFate::kNoRoom, 0, results.status()};
  }
  ObjectRecord RecordOf(const std::string& name) {
    auto object = store_->Find(name);
    EXPECT_OK(object);
    return object.ok() ? object->record() : ObjectRecord{};
  }
  void Put(const std::string& name, uint64_t size, uint64_t seed) {
    const std::string bytes = RandomBytes(size, seed);
    ASSERT_OK(store_->Put(BytesItem(name, bytes)));
  }
};

TEST_F(MoveTest, ContentAndGenerationStayThePlaceChanges) {
  Create();
  Open();
  const uint64_t sizes[] = {5000, 65536, 300001, 1 << 20, (5 << 20) + 7};
  for (const uint64_t size : sizes) Put(absl::StrCat(size), size, size);
  const uint64_t live = store_->stats().space.live;
  for (const uint64_t size : sizes) {
    const std::string name = absl::StrCat(size);
    const ObjectRecord before = RecordOf(name);
    const MoveResult result = Move(name);
    EXPECT_EQ(result.fate, MoveFate::kMoved) << name << ": " << result.why;
    EXPECT_EQ(result.bytes, size);
    const ObjectRecord after = RecordOf(name);
    EXPECT_EQ(after.generation, before.generation);
    EXPECT_EQ(after.fingerprint, before.fingerprint);
    EXPECT_EQ(after.place_seq, before.place_seq + 1);
    EXPECT_NE(after.columns, before.columns);
    EXPECT_EQ(after.trailer.units, before.trailer.units);
    EXPECT_EQ(Get(name), RandomBytes(size, size));
  }
  EXPECT_EQ(store_->stats().space.live, live);
  EXPECT_EQ(SpaceProblem(*store_), "");
  Reopen();
  for (const uint64_t size : sizes) EXPECT_EQ(Get(absl::StrCat(size)), RandomBytes(size, size));
  EXPECT_EQ(store_->stats().space.live, live);
  ASSERT_OK_AND_ASSIGN(const VerifyReport verified, VerifyStore(*store_, "", {}));
  EXPECT_EQ(verified.damage_count, 0u);
}

TEST_F(MoveTest, ClonesMoveTogether) {
  Create();
  Open();
  Put("a", 200000, 1);
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store_->Begin());
  transaction.Clone("a", "b");
  transaction.Clone("a", "c");
  ASSERT_OK(transaction.Commit());
  const uint64_t live = store_->stats().space.live;
  EXPECT_EQ(Move("b").fate, MoveFate::kMoved);
  EXPECT_EQ(RecordOf("a"), RecordOf("b"));
  EXPECT_EQ(RecordOf("c").place_seq, 1u);
  EXPECT_EQ(store_->stats().space.live, live);
  ASSERT_OK(Delete("a"));
  ASSERT_OK(Delete("b"));
  EXPECT_EQ(Get("c"), RandomBytes(200000, 1));
  Reopen();
  EXPECT_EQ(Get("c"), RandomBytes(200000, 1));
  ASSERT_OK(Delete("c"));
  EXPECT_EQ(store_->stats().space.live, 0u);
  EXPECT_EQ(SpaceProblem(*store_), "");
}

// The second of two moves of one object in one request was planned from a record that is no longer the newest.
TEST_F(MoveTest, WhatChangedMeanwhileWins) {
  Create();
  Open();
  Put("a", 200000, 1);
  const MoveRequest twice[] = {{.name = "a"}, {.name = "a"}};
  ASSERT_OK_AND_ASSIGN(const std::vector<MoveResult> results, store_->Move(twice));
  EXPECT_EQ(results[0].fate, MoveFate::kMoved);
  EXPECT_EQ(results[1].fate, MoveFate::kLost);
  EXPECT_EQ(Get("a"), RandomBytes(200000, 1));
  EXPECT_EQ(SpaceProblem(*store_), "");
}

TEST_F(MoveTest, WhatHasNoExtentsIsNotMovable) {
  Create();
  Open();
  Put("inline", 100, 1);
  const std::string bytes = RandomBytes(9000, 2);
  PutItem ephemeral = BytesItem("ephemeral", bytes);
  ephemeral.ephemeral = true;
  ASSERT_OK(store_->Put(ephemeral));
  EXPECT_EQ(Move("inline").fate, MoveFate::kNotMovable);
  EXPECT_EQ(Move("ephemeral").fate, MoveFate::kNotMovable);
  const MoveRequest missing{.name = "missing"};
  EXPECT_TRUE(absl::IsNotFound(store_->Move({&missing, 1}).status()));
}

TEST_F(MoveTest, AReaderKeepsTheOldPlaceUntilItLetsGo) {
  Create();
  Open();
  Put("a", 200000, 1);
  ASSERT_OK_AND_ASSIGN(Object held, store_->Find("a"));
  ASSERT_OK_AND_ASSIGN(std::unique_ptr<View> view, store_->NewView());
  EXPECT_EQ(Move("a").fate, MoveFate::kMoved);
  // A lease on the new place holds nothing of the old one.
  ASSERT_OK_AND_ASSIGN(const Object at_new_place, store_->Find("a"));
  EXPECT_GT(store_->stats().space.parked, 0u);
  EXPECT_EQ(ReadAll(held), RandomBytes(200000, 1));
  ASSERT_OK_AND_ASSIGN(Object seen, store_->Find("a", view.get()));
  EXPECT_EQ(seen.record().place_seq, 0u);
  held = Object();
  seen = Object();
  EXPECT_GT(store_->stats().space.parked, 0u);  // the view may look it up again
  view.reset();
  EXPECT_EQ(store_->stats().space.parked, 0u);
  EXPECT_EQ(ReadAll(at_new_place), RandomBytes(200000, 1));
}

TEST_F(MoveTest, DamagedBytesStayWhereTheyAre) {
  Create();
  Open();
  Put("good", 300000, 1);
  Put("bad", 300000, 2);
  const ObjectRecord before = RecordOf("bad");
  const Extent extent = before.columns[0][0];
  const std::string file = store_->info().files[0].path;
  FlipByte(file, extent.offset() + 70000);
  const MoveRequest both[] = {{.name = "bad"}, {.name = "good"}};
  ASSERT_OK_AND_ASSIGN(const std::vector<MoveResult> results, store_->Move(both));
  EXPECT_EQ(results[0].fate, MoveFate::kDamaged);
  EXPECT_EQ(CorruptionOf(results[0].why)->block, 1u) << results[0].why;
  EXPECT_EQ(results[1].fate, MoveFate::kMoved);
  EXPECT_EQ(RecordOf("bad"), before);
  EXPECT_EQ(Get("good"), RandomBytes(300000, 1));
  EXPECT_EQ(SpaceProblem(*store_), "");
}

TEST_F(MoveTest, WithoutRoomAnObjectStays) {
  Create(uint64_t{8} << 20);
  Open();
  Put("a", 5 << 20, 1);
  const ObjectRecord before = RecordOf("a");
  EXPECT_EQ(Move("a").fate, MoveFate::kNoRoom);
  EXPECT_EQ(RecordOf("a"), before);
  EXPECT_EQ(SpaceProblem(*store_), "");
}

TEST_F(MoveTest, StripedObjectsMoveBetweenDevices) {
  devices_ = {root_ + "/d1", root_ + "/d2"};
  Create(uint64_t{128} << 20);
  Open();
  Put("a", (20 << 20) + 12345, 1);
  ASSERT_EQ(RecordOf("a").columns.size(), 2u);
  const uint32_t first = store_->info().files[0].file_id;
  EXPECT_EQ(Move("a", first).fate, MoveFate::kMoved);
  for (const Extent& extent : ExtentsOf(RecordOf("a"))) EXPECT_EQ(extent.file_id, first);
  EXPECT_EQ(Get("a"), RandomBytes((20 << 20) + 12345, 1));
  Reopen();
  EXPECT_EQ(Get("a"), RandomBytes((20 << 20) + 12345, 1));
  EXPECT_EQ(SpaceProblem(*store_), "");
}

// Two whole trailers of one generation are left then, and one of them is right.
TEST_F(MoveTest, SalvageTakesTheNewerPlace) {
  Create();
  Open();
  Put("a", 300000, 1);
  Put("b", 300000, 2);
  EXPECT_EQ(Move("a").fate, MoveFate::kMoved);
  EXPECT_EQ(Move("a").fate, MoveFate::kMoved);
  ASSERT_OK(store_->Close());
  store_.reset();
  ASSERT_OK_AND_ASSIGN(const SalvageReport report, SalvageIndex(path_, {}));
  EXPECT_EQ(report.named, 2u);
  EXPECT_EQ(report.renamed + report.damaged + report.unreadable, 0u);
  Open();
  EXPECT_EQ(Names(""), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(RecordOf("a").place_seq, 2u);
  EXPECT_EQ(Get("a"), RandomBytes(300000, 1));
  EXPECT_EQ(Get("b"), RandomBytes(300000, 2));
  EXPECT_EQ(SpaceProblem(*store_), "");
}

// The backup knows the names, and a place that other bytes lie in by now.
TEST_F(MoveTest, SalvageWithAnOlderBackupFindsWhatMovedSince) {
  Create(uint64_t{8} << 20);
  Open();
  Put("a", 2 << 20, 1);
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store_->Begin());
  transaction.Rename("a", "renamed");
  transaction.Clone("renamed", "clone");
  ASSERT_OK(transaction.Commit());
  ASSERT_OK(store_->Backup(root_ + "/backup"));
  EXPECT_EQ(Move("clone").fate, MoveFate::kMoved);
  Put("over the old place", 3 << 20, 2);
  ASSERT_OK(Delete("over the old place"));
  Put("and again", 3 << 20, 3);
  ASSERT_OK(store_->Close());
  store_.reset();
  ASSERT_OK_AND_ASSIGN(const SalvageReport report, SalvageIndex(path_, {.backup = root_ + "/backup"}));
  EXPECT_EQ(report.lost_names, 0u);
  Open();
  EXPECT_EQ(Names(""), (std::vector<std::string>{"and again", "clone", "renamed"}));
  EXPECT_EQ(Get("renamed"), RandomBytes(2 << 20, 1));
  EXPECT_EQ(Get("clone"), RandomBytes(2 << 20, 1));
  EXPECT_EQ(RecordOf("clone"), RecordOf("renamed"));
  EXPECT_EQ(Get("and again"), RandomBytes(3 << 20, 3));
  EXPECT_EQ(SpaceProblem(*store_), "");
}

// Moves of everything, again and again, while two threads put and delete the same names and a third reads them.
TEST_F(MoveTest, BesidePutsDeletesAndReaders) {
  Create();
  Open();
  constexpr int kRounds = 60;
  const auto name_of = [](uint64_t i) { return absl::StrCat("n", i % 6); };
  for (uint64_t i = 0; i < 6; ++i) Put(name_of(i), 70000, i);
  absl::Notification done;
  std::thread mover([&] {
    uint64_t moved = 0;
    for (uint64_t i = 0; !done.HasBeenNotified() || moved == 0; ++i) {
      const MoveRequest request{.name = name_of(i)};
      const auto results = store_->Move({&request, 1});
      if (absl::IsNotFound(results.status())) continue;
      ASSERT_OK(results);
      const MoveFate fate = (*results)[0].fate;
      ASSERT_TRUE(fate == MoveFate::kMoved || fate == MoveFate::kLost) << (*results)[0].why;
      moved += fate == MoveFate::kMoved ? 1 : 0;
    }
  });
  std::thread reader([&] {
    for (uint64_t i = 0; !done.HasBeenNotified(); ++i) {
      auto object = store_->Find(name_of(i));
      if (absl::IsNotFound(object.status())) continue;
      ASSERT_OK(object);
      std::string bytes(object->size_bytes(), '\0');
      const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
      ASSERT_OK(store_->Read({&request, 1}, {}));
      ASSERT_EQ(bytes, RandomBytes(bytes.size(), i % 6));
    }
  });
  std::vector<std::thread> writers;
  for (uint64_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      for (uint64_t i = 0; i < kRounds; ++i) {
        const uint64_t which = (i * 5 + writer * 3) % 6;
        const std::string bytes = RandomBytes(i % 2 == 0 ? 70000 : 5000, which);
        ASSERT_OK(store_->Put(BytesItem(name_of(which), bytes)));
        if (i % 3 == 0) {
          auto transaction = store_->Begin();
          ASSERT_OK(transaction);
          transaction->Delete(name_of(which + 1), /*missing_ok=*/true);
          ASSERT_OK(transaction->Commit());
        }
      }
    });
  }
  for (std::thread& thread : writers) thread.join();
  done.Notify();
  mover.join();
  reader.join();
  Put("n0", 70000, 0);
  EXPECT_EQ(SpaceProblem(*store_), "");
  Reopen();
  EXPECT_EQ(SpaceProblem(*store_), "");
  ASSERT_OK_AND_ASSIGN(const VerifyReport verified, VerifyStore(*store_, "", {}));
  EXPECT_EQ(verified.damage_count, 0u);
}

}  // namespace
}  // namespace tensorshelf
