#include "cache.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_set>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace medusa {
namespace {

// Keys and values are read from end to end at each step: with huge pages of the system's where it has them.
constexpr size_t kHuge = size_t{1} << 21;

}  // namespace

std::shared_ptr<float[]> Cache::new_page() const {
    const size_t bytes = shape_.page_floats() * sizeof(float);
#if defined(__linux__)
    if (bytes >= kHuge) {
        float* memory = static_cast<float*>(std::aligned_alloc(kHuge, (bytes + kHuge - 1) / kHuge * kHuge));
        if (!memory) throw std::bad_alloc();
        madvise(memory, (bytes + kHuge - 1) / kHuge * kHuge, MADV_HUGEPAGE);
        return std::shared_ptr<float[]>(memory, [](float* p) { std::free(p); });
    }
#endif
    return std::shared_ptr<float[]>(new float[bytes / sizeof(float)]);
}

int64_t Cache::open() {
    sequences_.emplace(++last_, Sequence{});
    return last_;
}

int64_t Cache::fork(int64_t handle, int64_t length) {
    const Sequence& from = at(handle);
    if (length < 0 || length > from.length) throw std::invalid_argument("a fork cannot be longer than its sequence");
    Sequence copy;
    copy.length = length;
    copy.pages.assign(from.pages.begin(), from.pages.begin() + (length + kPage - 1) / kPage);
    if (length % kPage) {
        auto page = new_page();
        std::memcpy(page.get(), copy.pages.back().get(), shape_.page_floats() * sizeof(float));
        copy.pages.back() = std::move(page);
    }
    sequences_.emplace(++last_, std::move(copy));
    return last_;
}

void Cache::close(int64_t handle) {
    at(handle);
    sequences_.erase(handle);
}

void Cache::truncate(int64_t handle, int64_t length) {
    Sequence& sequence = at(handle);
    if (length < 0 || length > sequence.length) throw std::invalid_argument("a sequence can only be cut shorter");
    sequence.length = length;
    sequence.pages.resize((length + kPage - 1) / kPage);
}

Sequence& Cache::at(int64_t handle) {
    auto found = sequences_.find(handle);
    if (found == sequences_.end()) throw std::out_of_range("sequence " + std::to_string(handle) + " is not open");
    return found->second;
}

void Cache::reserve(Sequence& sequence, int64_t length) {
    std::vector<std::shared_ptr<float[]>> pages = sequence.pages;
    // A page that a fork shares is copied before it is written on.
    if (const size_t last = sequence.length / kPage; last < pages.size() && pages[last].use_count() > 2) {
        auto page = new_page();
        std::memcpy(page.get(), pages[last].get(), shape_.page_floats() * sizeof(float));
        pages[last] = std::move(page);
    }
    while (int64_t(pages.size()) * kPage < length) pages.push_back(new_page());
    sequence.pages = std::move(pages);
}

size_t Cache::bytes() const {
    std::unordered_set<const float*> distinct;
    for (const auto& entry : sequences_)
        for (const auto& page : entry.second.pages) distinct.insert(page.get());
    return distinct.size() * shape_.page_floats() * sizeof(float);
}

}  // namespace medusa
