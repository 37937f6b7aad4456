// Keys and values of sequences, in pages that forks share.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace medusa {

constexpr int kPage = 64;  // positions per page

// The sizes that keys and values depend on. half: kept as fp16, in half the memory.
struct CacheShape {
    int layers, kv_heads, head_dim;
    bool half = false;
    size_t page_numbers() const { return size_t(layers) * 2 * kv_heads * kPage * head_dim; }
    size_t page_bytes() const { return page_numbers() * (half ? sizeof(uint16_t) : sizeof(float)); }
};

// Memory for pages. What one leaves is used again, so a process keeps as much as it had in use at most: a page is
// megabytes, and the first touch of new memory costs a system far more than keys and values cost to write.
class PageMemory {
public:
    explicit PageMemory(size_t bytes) : bytes_(bytes) {}
    PageMemory(const PageMemory&) = delete;
    ~PageMemory();
    // Throws std::bad_alloc. What is in it is undefined.
    void* take();
    void give(void* memory) noexcept;

private:
    size_t bytes_, made_ = 0;
    std::vector<void*> spare_;
};

// Keys and values of kPage positions.
class Page {
public:
    // Throws std::bad_alloc.
    explicit Page(std::shared_ptr<PageMemory> source) : source_(std::move(source)), memory_(source_->take()) {}
    Page(const Page&) = delete;
    ~Page() { source_->give(memory_); }
    float* floats() { return static_cast<float*>(memory_); }
    uint16_t* halves() { return static_cast<uint16_t*>(memory_); }

private:
    std::shared_ptr<PageMemory> source_;
    void* memory_;
};

// The keys (kind 0) or values (kind 1) of one layer and head on a page: (kPage, head_dim).
inline size_t page_offset(const CacheShape& shape, int layer, int kind, int head) {
    return ((size_t(layer) * 2 + kind) * shape.kv_heads + head) * kPage * shape.head_dim;
}

struct Sequence {
    std::vector<std::shared_ptr<Page>> pages;
    int64_t length = 0;
};

class Cache {
public:
    explicit Cache(CacheShape shape) : shape_(shape), memory_(std::make_shared<PageMemory>(shape.page_bytes())) {}

    const CacheShape& shape() const { return shape_; }
    int64_t open();
    // A sequence with the first `length` tokens of another; whole pages are shared, the last one is copied.
    int64_t fork(int64_t handle, int64_t length);
    void close(int64_t handle);
    void truncate(int64_t handle, int64_t length);
    // Throws std::out_of_range for a sequence that is not open.
    Sequence& at(int64_t handle);
    // Pages for positions up to `length`, none of those from the sequence's end on shared. Throws std::bad_alloc and
    // leaves the sequence as it was.
    void reserve(Sequence& sequence, int64_t length);
    // Of pages that sequences have.
    size_t bytes() const;

private:
    std::shared_ptr<Page> new_page() const { return std::make_shared<Page>(memory_); }
    std::shared_ptr<Page> copy_of(Page& page) const;

    CacheShape shape_;
    std::shared_ptr<PageMemory> memory_;
    int64_t last_ = 0;
    std::unordered_map<int64_t, Sequence> sequences_;
};

}  // namespace medusa
