// Goal: what people read and type is right to the character. Method: pure functions on values made by hand.

#include <gtest/gtest.h>

#include <sstream>

#include "tests/testing/status_matchers.h"
#include "tools/cli/name_tree.h"
#include "tools/cli/progress.h"
#include "tools/cli/report.h"
#include "tools/cli/run.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

TEST(Text, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes((uint64_t{1} << 30) - 1), "1.0 GiB");
  EXPECT_EQ(FormatBytes(~uint64_t{0}), "16.0 EiB");
}

TEST(Text, SizesAsTyped) {
  const std::pair<const char*, uint64_t> kSizes[] = {{"0", 0},
                                                     {"4096", 4096},
                                                     {"18446744073709551615", ~uint64_t{0}},
                                                     {"64GiB", uint64_t{64} << 30},
                                                     {"1.5 TiB", uint64_t{3} << 39},
                                                     {"10MB", 10'000'000},
                                                     {"10k", 10'000},
                                                     {"7 b", 7},
                                                     {"2Gi", uint64_t{2} << 30}};
  for (const auto& [text, bytes] : kSizes) {
    ASSERT_OK_AND_ASSIGN(const uint64_t parsed, ParseBytes(text));
    EXPECT_EQ(parsed, bytes) << text;
  }
  for (const char* text :
       {"", "GiB", "-1", "1X", "1GiBB", "1Gx", "99999999999EiB", "1..5MB", "1 2", "18446744073709551616"}) {
    EXPECT_FAILS(ParseBytes(text).status(), absl::StatusCode::kInvalidArgument, "is not a size");
  }
}

TEST(Text, ShapesAndTimes) {
  EXPECT_EQ(FormatShape(std::vector<uint64_t>{}), "[]");
  EXPECT_EQ(FormatShape(std::vector<uint64_t>{2, 3}), "[2, 3]");
  EXPECT_EQ(FormatTime(1'700'000'000'123'456'789), "2023-11-14T22:13:20Z");
  EXPECT_EQ(FormatDuration(-5), "0 s");
  EXPECT_EQ(FormatDuration(7200), "2 h");
  EXPECT_EQ(FormatCount(1, "name"), "1 name");
  EXPECT_EQ(FormatCount(0, "name"), "0 names");
}

TEST(Text, MessagesCannotDisturbTheTerminal) {
  EXPECT_EQ(PrintableMessage("'a\\x1b' \x1b[31m\n"), "'a\\x1b' \\x1b[31m\\n");
}

TEST(Text, ColoursOnlyWhereAsked) {
  std::ostringstream out, err;
  Console console{out, err};
  EXPECT_EQ(Painted(console, Colour::kRed, "x"), "x");
  console.colour = true;
  EXPECT_EQ(Painted(console, Colour::kRed, "x"), "\x1b[31mx\x1b[0m");
}

TEST(Progress, RateAndTimeLeft) {
  EXPECT_EQ(RenderProgress(0, 100, 0), "0 B of 100 B (0 %)");
  EXPECT_EQ(RenderProgress(uint64_t{1} << 30, uint64_t{4} << 30, 2),
            "1.0 GiB of 4.0 GiB (25 %), 512.0 MiB/s, 6 s left");
  EXPECT_EQ(RenderProgress(2048, 0, 1), "2.0 KiB, 2.0 KiB/s");
}

TEST(Progress, OnlyOnATerminal) {
  std::ostringstream out, err;
  Console console{out, err};
  ProgressLine(console, "verify").Update(1, 2);
  EXPECT_EQ(err.str(), "");
  console.progress = true;
  ProgressLine(console, "verify").Update(1, 2);
  EXPECT_NE(err.str().find("verify 1 B of 2 B"), std::string::npos);
  EXPECT_EQ(err.str().substr(err.str().size() - 4), "\r\x1b[K");
}

TEST(NameTree, FoldsAndAddsUp) {
  NameTree tree(2);
  for (const char* name : {"model/layers.0.w", "model/layers.1.w", "model/top", "other"}) tree.Add(name, 1024);
  EXPECT_EQ(RenderTree(tree.root()),
            "├─ model/          3.0 KiB  3 names\n"
            "│  ├─ layers.      2.0 KiB  2 names\n"
            "│  └─ top          1.0 KiB  1 name\n"
            "└─ other           1.0 KiB  1 name\n");
  EXPECT_EQ(tree.root().names, 4u);
  EXPECT_EQ(TreeJson(tree.root())["children"][0]["children"][0]["names"], 2);
}

StoreInfo SomeInfo() {
  StoreInfo info;
  info.path = "/shelf";
  info.commit = 17;
  info.mode = "beside-writer";
  info.writer = "pid 4711";
  FileInfo file;
  file.file_id = 1;
  file.path = "/shelf/00000001.tsd";
  file.size = 10 << 20;
  file.data_begin = 1 << 20;
  file.data_end = 9 << 20;
  file.filled_until = 5 << 20;
  file.witness_commit = 16;
  file.tuning = TuningRow{.io_size = 2 << 20, .queue_depth = 16, .worker_count = 3};
  info.files = {file, FileInfo{}};
  info.files[1].file_id = 2;
  return info;
}

TEST(InfoReport, SaysWhatTheStoreSaid) {
  std::ostringstream out, err;
  const Console console{out, err};
  const InfoReport report{SomeInfo(), {"ext4", ""}, 3};
  const std::string text = RenderInfo(report, console);
  for (const char* part : {"commit        17\n", "writer        pid 4711\n", "names         3\n", "/shelf/00000001.tsd",
                           ", ext4\n", "filled      50 % (4.0 MiB)", "witness     commit 16", "data file 2  MISSING",
                           "tuning      transfers of 2.0 MiB, 16 in flight for each of 3 workers"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  const Json json = InfoJson(report);
  EXPECT_EQ(json["schema_version"], 1);
  EXPECT_EQ(json["writer"], "pid 4711");
  EXPECT_EQ(json["files"][0]["file_system"], "ext4");
  EXPECT_TRUE(json["files"][1]["path"].is_null());
  EXPECT_EQ(json["files"][0]["tuning"]["workers"], 3);
  EXPECT_TRUE(json["files"][0]["space"].is_null());
}

TEST(StatReport, PlacesExtents) {
  StatReport report;
  report.info = SomeInfo();
  report.name = "a\n\x1b";
  report.record.shape = {2};
  report.record.dtype = 6;
  report.record.logical_bytes = report.record.stored_bytes = 8;
  report.record.generation = (uint64_t{3} << 40) | 5;
  report.record.columns = {{{1, 2, 300}}, {{9, 1, 400}}};
  report.extents = PlaceExtents(report.info, report.record);
  ASSERT_EQ(report.extents.size(), 2u);
  EXPECT_EQ(report.extents[0].file, "/shelf/00000001.tsd");
  EXPECT_EQ(report.extents[0].offset, 300u * 4096);
  EXPECT_EQ(report.extents[0].length, 2u * 4096);
  EXPECT_EQ(report.extents[1].file, "");
  EXPECT_FALSE(PlaceTrailer(report.info, report.record).has_value());
  std::ostringstream out, err;
  const std::string text = RenderStat(report, Console{out, err});
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_NE(text.find("a\\n\\x1b"), std::string::npos);
  EXPECT_NE(text.find("(epoch 3)"), std::string::npos);
  EXPECT_NE(text.find("missing file 9, offset 1638400, length 4096"), std::string::npos) << text;
  EXPECT_EQ(StatJson(report)["object"]["name"], "a\n\x1b");
}

TEST(VerifyReport, ListsDamage) {
  std::ostringstream out, err;
  const Console console{out, err};
  const VerifyDamage damage{"w", 1, ErrorKind::kCorruption, 3, "/f", 4096, "sum"};
  EXPECT_EQ(RenderDamage(damage, console), "damaged  w: block 3, /f at offset 4096\n");
  EXPECT_EQ(DamageJson(damage)["kind"], "corruption");
  const VerifyDamage unreadable{"w", 1, ErrorKind::kDeviceMissing, 0, "", 0, "device gone"};
  EXPECT_EQ(RenderDamage(unreadable, console), "damaged  w: device gone\n");
  EXPECT_TRUE(DamageJson(unreadable)["block"].is_null());
}

TEST(Errors, ExitStatusFollowsTheKind) {
  EXPECT_EQ(ExitStatusOf(absl::OkStatus()), ExitStatus::kClean);
  EXPECT_EQ(ExitStatusOf(absl::DataLossError("")), ExitStatus::kDamage);
  EXPECT_EQ(ExitStatusOf(MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLostCommits, "")),
            ExitStatus::kDamage);
  EXPECT_EQ(ExitStatusOf(absl::NotFoundError("")), ExitStatus::kOperational);
}

}  // namespace
}  // namespace tensorshelf::cli
