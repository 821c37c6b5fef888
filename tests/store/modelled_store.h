// A store whose puts go into a model as well, to compare with after whatever moved them.

#ifndef TENSORSHELF_TESTS_STORE_MODELLED_STORE_H_
#define TENSORSHELF_TESTS_STORE_MODELLED_STORE_H_

#include <string>

#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"

namespace tensorshelf {

class ModelledStore : public StoreFixture {
 protected:
  ModelledStore() {
    options_.staging_bytes = 4 << 20;
    options_.page_locked = false;
    options_.background_fill = false;
  }

  // Bytes of a seed that no name of the model has yet, as long as none was dropped.
  void Put(const std::string& name, uint64_t size) {
    model_[name] = {.size = size, .seed = model_.size() + 1};
    const std::string bytes = model_[name].bytes();
    ASSERT_OK(store_->Put(BytesItem(name, bytes)));
  }
  // Content as in the model, space accounted for.
  void ExpectWhole() {
    EXPECT_EQ(Difference(*store_, model_), "");
    EXPECT_EQ(SpaceProblem(*store_), "");
  }

  Model model_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_TESTS_STORE_MODELLED_STORE_H_
