#include "cache.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <unordered_set>

#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

namespace medusa {
namespace {

// Keys and values are read from end to end at each step: with huge pages of the system's where it has them.
constexpr size_t kHuge = size_t{1} << 21, kLine = 64;

void release(void* memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    std::free(memory);
#endif
}

}  // namespace

PageMemory::~PageMemory() {
    for (void* memory : spare_) release(memory);
}

void* PageMemory::take() {
    if (!spare_.empty()) {
        void* memory = spare_.back();
        spare_.pop_back();
        return memory;
    }
    // Room for all pages there are, so that giving one back cannot fail.
    if (spare_.capacity() <= made_) spare_.reserve(2 * made_ + 1);
    const size_t unit = bytes_ >= kHuge ? kHuge : kLine, size = (bytes_ + unit - 1) / unit * unit;
#if defined(_WIN32)
    void* memory = _aligned_malloc(size, unit);
#else
    void* memory = std::aligned_alloc(unit, size);
#endif
    if (!memory) throw std::bad_alloc();
#if defined(__linux__)
    if (bytes_ >= kHuge) madvise(memory, size, MADV_HUGEPAGE);
#endif
    ++made_;
    return memory;
}

void PageMemory::give(void* memory) noexcept { spare_.push_back(memory); }

std::shared_ptr<Page> Cache::copy_of(Page& page) const {
    auto copy = new_page();
    std::memcpy(copy->floats(), page.floats(), shape_.page_bytes());
    return copy;
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
    if (length % kPage) copy.pages.back() = copy_of(*copy.pages.back());
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
    std::vector<std::shared_ptr<Page>> pages = sequence.pages;
    // A page that a fork shares is copied before it is written on.
    if (const size_t last = sequence.length / kPage; last < pages.size() && pages[last].use_count() > 2)
        pages[last] = copy_of(*pages[last]);
    while (int64_t(pages.size()) * kPage < length) pages.push_back(new_page());
    sequence.pages = std::move(pages);
}

size_t Cache::bytes() const {
    std::unordered_set<const Page*> distinct;
    for (const auto& entry : sequences_)
        for (const auto& page : entry.second.pages) distinct.insert(page.get());
    return distinct.size() * shape_.page_bytes();
}

}  // namespace medusa
