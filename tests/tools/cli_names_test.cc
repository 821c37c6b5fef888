// Goal: rm, mv, cp, diff, cat, df and map do what they say, ask where they must, and add up.
// Method: Run() on shelves of 16 MiB, text and JSON, compared with what was put in.

#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class CliNames : public CliFixture {
 protected:
  void Put(const std::vector<std::pair<std::string, std::string>>& objects) {
    const auto store = OpenStore();
    for (const auto& [name, bytes] : objects) PutBytes(*store, name, bytes);
    ASSERT_OK(store->Close());
  }
  std::string List() { return Call({"ls", shelf()}).out; }
};

TEST_F(CliNames, RmAsksBeforeMoreThanOne) {
  Put({{"a", "1"}, {"b/1", "2"}, {"b/2", "3"}, {"c", "4"}});
  EXPECT_EQ(Call({"rm", shelf(), "a"}).out, "removed 1 name, in commit 6\n");
  const Outcome refused = Call({"rm", shelf(), "b/", "--prefix"});
  EXPECT_EQ(refused.status, 16);
  EXPECT_NE(refused.err.find("2 names, from 'b/1' to 'b/2'"), std::string::npos) << refused.err;
  const Outcome declined = Call({"rm", shelf(), "b/", "--prefix"}, "n\n");
  EXPECT_EQ(declined.status, 8);
  EXPECT_EQ(List(), "b/1\nb/2\nc\n");
  EXPECT_EQ(Call({"rm", shelf(), "b/", "--prefix", "--dry-run"}).out, "b/1\nb/2\nwould remove 2 names\n");
  EXPECT_EQ(List(), "b/1\nb/2\nc\n");
  EXPECT_EQ(Call({"rm", shelf(), "b/", "--prefix"}, "y\n").status, 0);
  EXPECT_EQ(List(), "c\n");
  EXPECT_EQ(Call({"rm", shelf(), "gone", "c"}).status, 8);  // all or nothing
  EXPECT_EQ(List(), "c\n");
  EXPECT_EQ(Call({"rm", shelf(), "gone", "c", "--missing-ok", "--json"}).json()["removed"], 1);
  EXPECT_EQ(List(), "");
}

TEST_F(CliNames, MvAndCpTakePrefixes) {
  Put({{"m/a", "1"}, {"m/b", "2"}, {"n/a", "3"}});
  EXPECT_EQ(Call({"cp", shelf(), "m/a", "x"}).status, 0);
  EXPECT_EQ(Call({"cp", shelf(), "m/a", "n/a"}).status, 8);  // taken
  EXPECT_EQ(Call({"cp", shelf(), "m/", "k/", "--prefix", "--json"}).json()["copied"], 2);
  EXPECT_EQ(Call({"mv", shelf(), "k/", "l/", "--prefix", "--json"}).json()["moved"], 2);
  EXPECT_EQ(List(), "l/a\nl/b\nm/a\nm/b\nn/a\nx\n");
  EXPECT_EQ(Call({"mv", shelf(), "m/", "l/", "--prefix", "--replace"}).status, 16);  // would replace two
  EXPECT_EQ(Call({"mv", shelf(), "m/", "l/", "--prefix", "--replace", "--yes"}).status, 0);
  EXPECT_EQ(List(), "l/a\nl/b\nn/a\nx\n");
  EXPECT_EQ(Call({"mv", shelf(), "zz", "--prefix", "y"}).status, 8);
}

TEST_F(CliNames, DiffByFingerprint) {
  const std::string large = RandomBytes(200'000, 1);
  std::string other = large;
  other[100'000] ^= 1;
  Put({{"a/same", large},
       {"a/changed", large},
       {"a/gone", "1"},
       {"a/longer", "1"},
       {"b/same", large},
       {"b/changed", other},
       {"b/new", "1"},
       {"b/longer", "12"}});
  const Outcome text = Call({"diff", shelf(), "a/", "b/"});
  EXPECT_EQ(text.status, 0);
  EXPECT_NE(text.out.find("~ changed  other bytes\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("- gone  bytes 1 B\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("~ longer  bytes 1 B -> bytes 2 B\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("+ new  bytes 1 B\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("1 added, 1 removed, 2 changed, 1 the same"), std::string::npos) << text.out;
  const nlohmann::json json = Call({"diff", shelf(), "a/", "b/", "--json", "--same"}).json();
  EXPECT_EQ(json["differences"].size(), 5u);
  EXPECT_EQ(json["same_count"], 1);
  EXPECT_EQ(Call({"diff", shelf(), "a/", "b/", "--exit-code"}).status, 1);
  EXPECT_EQ(Call({"diff", shelf(), "a/", "a/", "--exit-code"}).status, 0);
  EXPECT_EQ(Call({"diff", shelf(), "a/"}).status, 16);
}

TEST_F(CliNames, DiffOfTwoShelves) {
  Put({{"a", "1"}, {"b", "2"}});
  const std::string second = path("second");
  ASSERT_EQ(Call({"create", second, "--capacity", "8MiB", "--prefill", "none"}).status, 0);
  {
    ASSERT_OK_AND_ASSIGN(const auto store, Store::Open(second, {.page_locked = false}));
    PutBytes(*store, "a", "1");
    PutBytes(*store, "c", "2");
    ASSERT_OK(store->Close());
  }
  const nlohmann::json json = Call({"diff", shelf(), "--other", second, "--json"}).json();
  EXPECT_EQ(json["same_count"], 1);
  EXPECT_EQ(json["added_count"], 1);
  EXPECT_EQ(json["removed_count"], 1);
  EXPECT_EQ(json["other"]["shelf"], second);
}

TEST_F(CliNames, CatWritesTheBytes) {
  const std::string large = RandomBytes(5'000'001, 3);
  Put({{"large", large}, {"small", "abc\n"}, {"empty", ""}});
  EXPECT_TRUE(Call({"cat", shelf(), "large"}).out == large);
  EXPECT_EQ(Call({"cat", shelf(), "small"}).out, "abc\n");
  EXPECT_EQ(Call({"cat", shelf(), "empty"}).out, "");
  EXPECT_EQ(Call({"cat", shelf(), "small", "--json"}).status, 16);
  EXPECT_NE(Call({"cat", shelf(), "small", "--print"}).out.find("61 62 63 0a"), std::string::npos);
  EXPECT_EQ(Call({"cat", shelf(), "empty", "--print", "--stats"}).status, 0);
  EXPECT_EQ(Call({"cat", shelf(), "none"}).status, 8);
}

TEST_F(CliNames, CatShowsValues) {
  const auto store = OpenStore();
  std::vector<float> values(40'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) - 20'000;
  values[5] = NAN;
  values[6] = -INFINITY;
  ASSERT_OK(store->Put({.name = "t",
                        .dtype = FindDtypeByName("float32")->number,
                        .shape = {200, 200},
                        .bytes = std::as_bytes(std::span(values))}));
  ASSERT_OK(store->Close());
  const Outcome text = Call({"cat", shelf(), "t", "--print"});
  EXPECT_NE(text.out.find("[[-20000 -19999 -19998 ... -19803 -19802 -19801]\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("\n ...\n"), std::string::npos) << text.out;
  const nlohmann::json json = Call({"cat", shelf(), "t", "--print", "--stats", "--json"}).json();
  EXPECT_EQ(json["stats"]["nan"], 1);
  EXPECT_EQ(json["stats"]["negative_infinity"], 1);
  EXPECT_EQ(json["stats"]["zeros"], 1);
  EXPECT_EQ(json["stats"]["min"], -20000.0);
  EXPECT_EQ(json["stats"]["max"], 19999.0);
  uint64_t counted = 0;
  for (const auto& count : json["stats"]["histogram"]["counts"]) counted += count.get<uint64_t>();
  EXPECT_EQ(counted, 39'998u);
  EXPECT_EQ(json["values"][0]["first"], 0);
  EXPECT_EQ(json["values"][1]["values"], (std::vector<double>{-19803, -19802, -19801}));
}

TEST_F(CliNames, DfAddsUp) {
  const std::string large = RandomBytes(1 << 20, 5);
  Put({{"a/1", large}, {"a/2", large}, {"b.x", large}, {"tiny", "1"}});
  ASSERT_EQ(Call({"cp", shelf(), "a/1", "a/3"}).status, 0);
  ASSERT_EQ(Call({"cp", shelf(), "a/2", "b.y"}).status, 0);
  const nlohmann::json json = Call({"df", shelf(), "--json"}).json();
  EXPECT_EQ(json["capacity"], 16 << 20);
  EXPECT_EQ(json["live"].get<uint64_t>() + json["free"].get<uint64_t>() + json["bad"].get<uint64_t>(), 16u << 20);
  const uint64_t each = (1 << 20) + 4096;  // with its trailer
  EXPECT_EQ(json["live"], 3 * each);
  EXPECT_EQ(json["shared"], 2 * each);
  EXPECT_EQ(json["nameless"], 0);
  EXPECT_EQ(json["parked"], 0);
  ASSERT_EQ(json["prefixes"].size(), 3u);
  EXPECT_EQ(json["prefixes"][0]["prefix"], "a/");
  EXPECT_EQ(json["prefixes"][0]["names"], 3);
  EXPECT_EQ(json["prefixes"][0]["space"], each);   // 1 and 3 are one object
  EXPECT_EQ(json["prefixes"][0]["shared"], each);  // 2
  EXPECT_EQ(json["prefixes"][1]["prefix"], "b.");
  EXPECT_EQ(json["prefixes"][1]["space"], each);
  EXPECT_EQ(json["prefixes"][1]["shared"], each);
  EXPECT_EQ(json["prefixes"][2]["prefix"], "");
  EXPECT_EQ(json["files"][0]["tier"], "nvme");
  EXPECT_EQ(json["tiers"][0]["live"], 3 * each);
  EXPECT_EQ(Call({"df", shelf()}).status, 0);

  const auto writer = OpenStore();
  const nlohmann::json beside = Call({"df", shelf(), "--json"}).json();
  EXPECT_TRUE(beside["parked"].is_null());
  EXPECT_EQ(beside["live"], 3 * each);
}

TEST_F(CliNames, MapDrawsWhatIsLive) {
  Put({{"a/1", RandomBytes(4 << 20, 5)}, {"b/<x>", RandomBytes(4 << 20, 6)}});
  const nlohmann::json json = Call({"map", shelf(), "--json", "--cells", "16"}).json();
  ASSERT_EQ(json["files"][0]["cells"].size(), 16u);
  double live = 0;
  for (const auto& cell : json["files"][0]["cells"]) live += cell["live"].get<double>();
  EXPECT_NEAR(live, 8, 0.1);  // of 16 MiB
  const Outcome text = Call({"map", shelf()});
  EXPECT_NE(text.out.find("█"), std::string::npos);
  EXPECT_NE(text.out.find("·"), std::string::npos);
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos);  // no terminal, no colours
  ASSERT_EQ(Call({"map", shelf(), "--svg", path("map.svg")}).status, 0);
  const std::string svg = ReadAll(path("map.svg"));
  EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
  EXPECT_NE(svg.find("a/, 4.0 MiB"), std::string::npos);
}

TEST_F(CliNames, GrowAddsCapacity) {
  const std::string large = RandomBytes(12 << 20, 1);
  Put({{"first", large}});
  EXPECT_EQ(Call({"grow", shelf(), "--capacity", "1MiB"}).status, 8);
  const Outcome grown = Call({"grow", shelf(), "--capacity", "16MiB", "--json"});
  ASSERT_EQ(grown.status, 0) << grown.out << grown.err;
  EXPECT_EQ(grown.json()["added"], 16 << 20);
  EXPECT_EQ(grown.json()["files"][0], (shelf_ / "00000002.tsd").string());
  EXPECT_EQ(Call({"fsck", shelf(), "--deep", "--json"}).json()["findings"].size(), 0u);
  Put({{"second", large}});
  EXPECT_TRUE(Call({"cat", shelf(), "second"}).out == large);
  const Outcome device = Call({"grow", shelf(), "--capacity", "16MiB", "--device", path("other"), "--json"});
  ASSERT_EQ(device.status, 0) << device.out << device.err;
  Put({{"third", large}});
  const nlohmann::json info = Call({"info", shelf(), "--json"}).json();
  ASSERT_EQ(info["files"].size(), 3u);
  EXPECT_EQ(info["files"][0]["device"], info["files"][1]["device"]);
  EXPECT_NE(info["files"][0]["device"], info["files"][2]["device"]);
  EXPECT_EQ(Call({"df", shelf(), "--json"}).json()["capacity"], 48 << 20);
  EXPECT_EQ(Call({"fsck", shelf(), "--deep", "--json"}).json()["findings"].size(), 0u);
  EXPECT_EQ(Call({"grow", shelf(), "--capacity", "16MiB", "--device", folder_.string()}).status, 8);  // not empty
  EXPECT_EQ(Call({"ls", shelf()}).out, "first\nsecond\nthird\n");
  const auto writer = OpenStore();
  EXPECT_EQ(Call({"grow", shelf(), "--capacity", "16MiB", "--json"}).json()["error"]["kind"], "locked");
}

TEST_F(CliNames, NoNameDisturbsTheTerminal) {
  const std::string evil = "e\x1b[2J\nnew\xe2\x80\xae/x";
  Put({{evil, "1"}, {evil + "2", "2"}});
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"ls", shelf()},
                                             {"ls", shelf(), "-l"},
                                             {"ls", shelf(), "--tree"},
                                             {"stat", shelf(), evil},
                                             {"cat", shelf(), evil, "--print"},
                                             {"df", shelf()},
                                             {"map", shelf()},
                                             {"diff", shelf(), evil, "none"},
                                             {"fsck", shelf()},
                                             {"rm", shelf(), evil + "3"},
                                             {"rm", shelf(), "e", "--prefix"},
                                             {"mv", shelf(), evil, evil + "2"}}) {
    const Outcome outcome = Call(arguments);
    EXPECT_EQ((outcome.out + outcome.err).find('\x1b'), std::string::npos) << arguments[0];
    EXPECT_EQ((outcome.out + outcome.err).find("\xe2\x80\xae"), std::string::npos) << arguments[0];
  }
}

}  // namespace
}  // namespace tensorshelf::cli
