// Goal: on a store of a million names (a tenth of that in a sanitized program) the listing verbs say every name once
// and in order, in memory that does not grow with the names, and the others find their way. Method: one store made
// through the library, each verb's output read line by line as it comes.

#include <array>
#include <functional>
#include <streambuf>

#include "absl/strings/str_format.h"
#include "tests/testing/scale.h"
#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

constexpr uint64_t kNames = 1'000'000 / testing::kScaleDown;
constexpr uint64_t kNamesPerCommit = 20'000;
constexpr uint64_t kMemoryMax = uint64_t{64} << 20;  // a tenth of what the names and records would take

// Sorts as its number.
std::string Name(uint64_t i) { return absl::StrFormat("model.layers.%03d/expert-%07d", i * 100 / kNames, i); }

// Hands each line to a function and keeps none.
class LineReader : public std::streambuf {
 public:
  explicit LineReader(std::function<void(const std::string& line)> read) : read_(std::move(read)) {}

 protected:
  int_type overflow(int_type c) override {
    if (c == traits_type::eof()) return 0;
    if (c == '\n') {
      read_(line_);
      line_.clear();
    } else {
      line_.push_back(traits_type::to_char_type(c));
    }
    return c;
  }

 private:
  const std::function<void(const std::string& line)> read_;
  std::string line_;
};

uint64_t StatusValue(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::stoull(line.substr(key.size())) << 10;
  }
  ADD_FAILURE() << key;
  return 0;
}

class CliManyNames : public CliFixture {
 protected:
  void SetUp() override {
    CliFixture::SetUp();
    const auto store = OpenStore();
    const std::array<std::byte, 8> value{};
    for (uint64_t first = 0; first < kNames; first += kNamesPerCommit) {
      std::vector<PutItem> items;
      for (uint64_t i = first; i < std::min(kNames, first + kNamesPerCommit); ++i) {
        items.push_back({.name = Name(i), .kind = ObjectKind::kBytes, .bytes = value});
      }
      ASSERT_OK(store->Put(items));
    }
    ASSERT_OK(store->Close());
  }

  // How far memory rose while the verb wrote its lines.
  uint64_t Stream(const std::vector<std::string>& arguments, const std::function<void(const std::string& line)>& read) {
    std::vector<const char*> argv = {"tensorshelf"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    LineReader lines(read);
    std::ostream out(&lines);
    std::ostringstream err;
    Console console{out, err};
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts again from here
    const uint64_t before = StatusValue("VmRSS:");
    EXPECT_EQ(cli::Run(static_cast<int>(argv.size()), argv.data(), console), 0) << err.str();
    const uint64_t peak = StatusValue("VmHWM:");
    return peak > before ? peak - before : 0;
  }

  static void ExpectBounded(uint64_t memory) {
    if (testing::kScaleDown == 1) {  // a sanitizer keeps freed memory
      EXPECT_LT(memory, kMemoryMax);
    }
  }
};

TEST_F(CliManyNames, EveryVerbFindsItsWay) {
  uint64_t count = 0;
  ExpectBounded(Stream({"ls", shelf()}, [&](const std::string& line) {
    if (line != Name(count)) ADD_FAILURE() << line << " is line " << count;
    ++count;
  }));
  EXPECT_EQ(count, kNames);

  count = 0;
  ExpectBounded(Stream({"ls", shelf(), "--long"}, [&](const std::string& line) { count += line.ends_with("3"); }));
  EXPECT_EQ(count, kNames / 10);

  count = 0;
  ExpectBounded(Stream({"ls", shelf(), "--json"}, [&](const std::string& line) {
    if (count < kNames && line.find("\"" + Name(count) + "\"") != std::string::npos) ++count;
  }));
  EXPECT_EQ(count, kNames);

  const std::string prefix = "model.layers.042/";
  EXPECT_EQ(Call({"ls", shelf(), prefix, "--limit", "2"}).out,
            absl::StrCat(Name(kNames / 100 * 42), "\n", Name(kNames / 100 * 42 + 1), "\n"));
  EXPECT_EQ(Call({"info", shelf(), "--count", "--json"}).json()["names"], kNames);
  EXPECT_EQ(Call({"stat", shelf(), Name(kNames - 1), "--json"}).json()["object"]["size"], 8);
  EXPECT_EQ(Call({"df", shelf()}).status, 0);
  EXPECT_EQ(Call({"fsck", shelf()}).status, 0);
}

}  // namespace
}  // namespace tensorshelf::cli
