#include "threads.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace medusa {
namespace {

// After these many turns of waiting at a barrier, a tenth of a millisecond, a thread sleeps until the last one arrives:
// that one waits for a core, perhaps this. (Giving the core away by yielding costs more: whoever gets it keeps it for
// milliseconds; beside two processes of lowest priority a pass took a third to four fifths longer.)
constexpr int kPatience = 2000;
// And after these many without work it sleeps. A step follows the last one within a fraction of a millisecond.
constexpr int kWakefulness = 60000;

void breathe() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

}  // namespace

Threads::Threads(int count) : count_(count < 1 ? 1 : count) {
    for (int i = 1; i < count_; ++i) workers_.emplace_back([this, i] { loop(i); });
}

Threads::~Threads() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ending_ = true;
        ++started_;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void Threads::run(const std::function<void(int)>& work) {
    if (count_ == 1) return work(0);
    work_ = &work;
    bool sleepers;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        started_.fetch_add(1, std::memory_order_release);
        sleepers = asleep_ > 0;
    }
    if (sleepers) wake_.notify_all();
    work(0);
    meet();
}

void Threads::meet() {
    if (count_ == 1) return;
    const uint64_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        // In one order for all with the waiting threads' count, so that none of them misses this.
        round_.store(round + 1);
        if (waiting_.load()) {
            std::lock_guard<std::mutex> lock(mutex_);
            meeting_.notify_all();
        }
        return;
    }
    for (int turn = 0; turn < kPatience; ++turn) {
        if (round_.load(std::memory_order_acquire) != round) return;
        breathe();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    waiting_.fetch_add(1);
    meeting_.wait(lock, [&] { return round_.load() != round; });
    waiting_.fetch_sub(1);
}

void Threads::loop(int thread) {
    uint64_t seen = 0;
    for (;;) {
        for (int turn = 0; turn < kWakefulness && started_.load(std::memory_order_acquire) == seen; ++turn) breathe();
        if (started_.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(mutex_);
            ++asleep_;
            wake_.wait(lock, [&] { return started_.load(std::memory_order_relaxed) != seen; });
            --asleep_;
        }
        ++seen;
        if (ending_.load(std::memory_order_acquire)) return;
        (*work_)(thread);
        meet();
    }
}

}  // namespace medusa
