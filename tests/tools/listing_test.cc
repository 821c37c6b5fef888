// Goal: a listing with records says the same as a lookup of each name, of one commit, whatever the order of the
// objects. Method: thousands of names put in a shuffled order, some replaced, cloned, inline, deleted; then compared
// one by one.

#include "tools/cli/listing.h"

#include <algorithm>

#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class Listing : public CliFixture {};

TEST_F(Listing, TheCursorAgreesWithFind) {
  const auto store = OpenStore();
  std::vector<std::string> names;
  for (int i = 0; i < 6000; ++i) names.push_back(absl::StrCat(i % 7, "/", i));
  std::mt19937 random(3);
  std::ranges::shuffle(names, random);
  const std::string inline_bytes = "abc", unit_bytes(1500, 'x');
  for (size_t first = 0; first < names.size(); first += 2000) {
    std::vector<PutItem> items(2000);
    for (size_t i = 0; i < items.size(); ++i) {
      items[i].name = names[first + i];
      items[i].kind = ObjectKind::kBytes;
      items[i].bytes = std::as_bytes(std::span(i % 3 == 0 ? unit_bytes : inline_bytes));
    }
    ASSERT_OK(store->Put(items));
  }
  for (int i = 0; i < 50; ++i) PutBytes(*store, names[i], "replaced");
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store->Begin());
  for (int i = 50; i < 100; ++i) transaction.Delete(names[i]);
  transaction.ClonePrefix("3/", "clone/");
  ASSERT_OK(transaction.Commit());

  std::vector<std::string> scanned;
  ASSERT_OK(store->Scan("", "", [&](const std::string& name, uint64_t) {
    scanned.push_back(name);
    return true;
  }));
  for (const std::string prefix : {"", "3/", "clone/", "none"}) {
    ASSERT_OK_AND_ASSIGN(const auto cursor, store->NewCursor(prefix, ""));
    for (const std::string& name : scanned) {
      if (name.rfind(prefix, 0) != 0) continue;
      ASSERT_OK_AND_ASSIGN(const bool there, cursor->Next());
      ASSERT_TRUE(there) << name;
      ASSERT_EQ(cursor->name(), name);
      ASSERT_OK(cursor->status());
      ASSERT_OK_AND_ASSIGN(const Object object, store->Find(name));
      ASSERT_EQ(cursor->record(), object.record()) << name;
      ASSERT_EQ(cursor->generation(), object.record().generation);
    }
    for (int i = 0; i < 2; ++i) {
      ASSERT_OK_AND_ASSIGN(const bool there, cursor->Next());
      EXPECT_FALSE(there);
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto from, store->NewCursor("", "5/"));
  ASSERT_OK_AND_ASSIGN(const bool there, from->Next());
  EXPECT_TRUE(there && from->name() == *std::ranges::lower_bound(scanned, "5/"));
}

TEST_F(Listing, TheCursorStaysAtItsCommit) {
  const auto store = OpenStore();
  for (const char* name : {"a", "b", "c"}) PutBytes(*store, name, std::string(5000, *name));
  ASSERT_OK_AND_ASSIGN(const auto cursor, store->NewCursor("", ""));
  ASSERT_OK_AND_ASSIGN(Transaction transaction, store->Begin());
  transaction.DeletePrefix("");
  ASSERT_OK(transaction.Commit());
  PutBytes(*store, "d", "new");
  std::string seen;
  while (true) {
    ASSERT_OK_AND_ASSIGN(const bool there, cursor->Next());
    if (!there) break;
    ASSERT_OK(cursor->status());
    EXPECT_EQ(cursor->record().logical_bytes, 5000u);
    seen += cursor->name();
  }
  EXPECT_EQ(seen, "abc");
}

// Rows of JSON are written by hand, for speed: they must be what the library would write.
TEST_F(Listing, JsonRowsAreWhatTheLibraryWrites) {
  const auto store = OpenStore();
  const std::vector<float> values(12);
  for (const std::string name : {"plain", "qu\"ote", "back\\slash", "line\nend", "caf\xc3\xa9", "tab\t", "d'el\x7f"}) {
    PutBytes(*store, name, "abc");
    ASSERT_OK(store->Put({.name = name + "/t",
                          .dtype = FindDtypeByName("float32")->number,
                          .shape = {3, 4},
                          .bytes = std::as_bytes(std::span(values))}));
  }
  ASSERT_OK(store->Close());
  const nlohmann::json rows = Call({"ls", shelf(), "--json"}).json()["names"];
  ASSERT_EQ(rows.size(), 14u);
  for (const auto& row : rows) {
    nlohmann::json object = Call({"stat", shelf(), row["name"].get<std::string>(), "--json"}).json()["object"];
    for (const auto& [key, value] : row.items()) {
      if (key != "tier") {
        EXPECT_EQ(value, object[key]) << key;
      }
    }
    EXPECT_EQ(row["tier"], "index");
  }
}

}  // namespace
}  // namespace tensorshelf::cli
