// How fast this machine reads the weights: what bounds a pass of one row.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "model.h"

namespace medusa {
namespace {

constexpr size_t kLine = 64, kAhead = 4096;  // bytes; as far ahead as a lone tile fetches

// Adds up whole lines, eight words at a time; what is fetched behind the end does no harm.
template <bool FETCH>
uint64_t sum_of(const char* p, size_t bytes) {
    uint64_t sums[8] = {};
    for (size_t i = 0; i + kLine <= bytes; i += kLine) {
#if defined(__GNUC__)
        if (FETCH) __builtin_prefetch(p + i + kAhead);
#endif
        uint64_t words[8];
        std::memcpy(words, p + i, kLine);
        for (int j = 0; j < 8; ++j) sums[j] += words[j];
    }
    uint64_t sum = 0;
    for (uint64_t each : sums) sum += each;
    return sum;
}

}  // namespace

// Some machines read faster when told what comes next, as the products do; the faster way is the bound.
double Model::read_weights() { return std::min(time_reading(true), time_reading(false)); }

// Each thread reads its share of each linear, as in a pass.
double Model::time_reading(bool fetch) {
    std::vector<uint64_t> sums(threads_->count());
    const auto started = std::chrono::steady_clock::now();
    threads_->run([&](int thread) {
        const auto read = [&](const Linear& linear) {
            const Share share(linear.panels(), thread, threads_->count());
            const char* from = static_cast<const char*>(linear.weights) + share.begin * linear.panel_bytes();
            const size_t bytes = size_t(share.end - share.begin) * linear.panel_bytes();
            sums[thread] += fetch ? sum_of<true>(from, bytes) : sum_of<false>(from, bytes);
        };
        for (const Layer& layer : weights_.layers) read(layer.qkv), read(layer.output), read(layer.gate_up), read(layer.down);
        read(weights_.head);
    });
    const auto ended = std::chrono::steady_clock::now();
    volatile uint64_t sink = sums[0];  // keeps the reading from being optimised away
    (void)sink;
    return std::chrono::duration<double>(ended - started).count();
}

}  // namespace medusa
