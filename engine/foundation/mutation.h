// Deliberate breakages, one at each rule that keeps data safe: a build with the CMake option TENSORSHELF_MUTATIONS can
// be told to break one of them, and the tests must notice (`tools/prove --mutations`). Any other build has none of it:
// TS_MUTATE is the constant false there, and what it guards is not compiled in.
//
// A mutated build reads the name of the one breakage from the environment, TENSORSHELF_MUTATION, so that programs that
// a test starts break the same rule. tools/proof/mutations.py lists the names.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_MUTATION_H_
#define TENSORSHELF_ENGINE_FOUNDATION_MUTATION_H_

#ifdef TENSORSHELF_MUTATIONS

#include <cstdlib>
#include <cstring>

namespace tensorshelf {

inline bool MutationIsOn(const char* name) {
  static const char* const chosen = std::getenv("TENSORSHELF_MUTATION");
  return chosen != nullptr && std::strcmp(chosen, name) == 0;
}

}  // namespace tensorshelf

#define TS_MUTATE(name) (::tensorshelf::MutationIsOn(#name))

#else

#define TS_MUTATE(name) false

#endif

#endif  // TENSORSHELF_ENGINE_FOUNDATION_MUTATION_H_
