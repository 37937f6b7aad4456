// Memory for the numbers of one pass.
#pragma once

#include <cstddef>
#include <memory>

namespace medusa {

// An array that is resized without being filled: a pass writes all that it reads. It keeps its largest size, since the
// next pass may have as many rows again.
template <class T>
class Buffer {
public:
    // Throws std::bad_alloc. What was in it is lost where it grows.
    void resize(size_t size) {
        if (size > room_) {
            room_ = 0;
            memory_.reset();  // first, so that both never exist at once
            memory_.reset(new T[size]);
            room_ = size;
        }
        size_ = size;
    }
    void clear() { size_ = 0; }
    bool empty() const { return !size_; }
    size_t size() const { return size_; }
    T* data() { return memory_.get(); }
    const T* data() const { return memory_.get(); }
    T& operator[](size_t i) { return memory_[i]; }
    const T& operator[](size_t i) const { return memory_[i]; }

private:
    std::unique_ptr<T[]> memory_;
    size_t size_ = 0, room_ = 0;
};

}  // namespace medusa
