// A pool of threads that run one function together and meet at barriers inside it.
//
// std::thread instead of OpenMP: one implementation on every platform, and no second OpenMP runtime beside torch's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace medusa {

class Threads {
public:
    explicit Threads(int count);
    ~Threads();
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    int count() const { return count_; }
    // Runs `work(thread)` on all threads, the caller's being number 0; returns when all are done. `work` must not throw.
    void run(const std::function<void(int)>& work);
    // Waits, inside `run`, until all threads are here.
    void meet();

private:
    void loop(int thread);

    const int count_;
    std::vector<std::thread> workers_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<uint64_t> started_{0};
    std::atomic<bool> ending_{false};
    std::mutex mutex_;
    std::condition_variable wake_, meeting_;
    int asleep_ = 0;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint64_t> round_{0};
    std::atomic<int> waiting_{0};  // asleep at a barrier
};

// The share of thread `thread` of `count` in `items`: contiguous, equal to within one.
struct Share {
    int begin, end;
    Share(int items, int thread, int count)
        : begin(int(int64_t(items) * thread / count)), end(int(int64_t(items) * (thread + 1) / count)) {}
};

}  // namespace medusa
