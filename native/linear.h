// The packed product: how rows and panels are cut into tiles. The tile itself is the instruction set's own.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels.h"
#include "lanes.h"

namespace medusa {
namespace {

constexpr int kLead = 4096;      // bytes that a lone tile fetches ahead: what is under way at full bandwidth
constexpr int kRowChunk = 96;  // rows whose activations stay in the cache while the panels pass

// Sums of one tile: up to 16 rows and a panel's channels, before the weights' scale.
constexpr int kMostRows = 16;
using Sums = float[kMostRows][kPanel];

// What a tile prefetches: one line of 64 bytes for each 64 bytes of weights it reads, `step` bytes apart.
struct Prefetch {
    const char* line;
    int step;

    void fetch() {
#if defined(__AVX2__)
        _mm_prefetch(line, _MM_HINT_T0);
#endif
        line += step;
    }
};

template <class L>
void finish(const Linear& linear, int panel, const Sums& sums, int rows, float* out, int out_stride, bool add) {
    const int channel = panel * kPanel;
    for (int row = 0; row < rows; ++row) {
        float* target = out + size_t(row) * out_stride + channel;
        for (int i = 0; i < kPanel; i += 8) {
            auto y = L::load(sums[row] + i);
            if (linear.scale) y = L::mul(y, L::load(linear.scale + channel + i));
            if (linear.bias) y = L::add(y, L::load(linear.bias + channel + i));
            if (add) y = L::add(L::load(target + i), y);
            L::store(target + i, y);
        }
    }
}

// Tile: `static void run(const Linear&, const void* panel, const Activations&, int row, int rows, Prefetch, Sums&)`;
// `kRows`, the most rows it takes; `static void unpack(const char* panel, int k, int8_t* out)`, int4 to int8.
template <class L, class Tile>
void linear(const Linear& weights, const Activations& x, int rows, float* out, int out_stride, bool add, int begin,
            int end) {
    const size_t bytes = weights.panel_bytes();
    const char* first = static_cast<const char*>(weights.weights);
    alignas(64) Sums sums;
    Linear whole = weights;  // as several tiles of rows read int4: unpacked once for all of them
    static thread_local std::vector<int8_t> unpacked;
    if (weights.type == WeightType::int4 && rows > Tile::kRows) {
        whole.type = WeightType::int8;
        unpacked.resize(whole.panel_bytes());
    }
    // How far apart several tiles fetch for each 64 bytes that they read.
    const int apart = int(64 * bytes / whole.panel_bytes());
    for (int chunk = 0; chunk < rows; chunk += kRowChunk) {
        const int count = std::min(kRowChunk, rows - chunk);
        const int tiles = (count + Tile::kRows - 1) / Tile::kRows;
        const bool unpack = tiles > 1 && weights.type == WeightType::int4;
        for (int panel = begin; panel < end; ++panel) {
            const char* data = first + panel * bytes;
            if (unpack) Tile::unpack(data, weights.k, unpacked.data());
            for (int tile = 0; tile < tiles; ++tile) {
                // Even tiles: 8 rows as 4 + 4, not as 6 + 2.
                const int from = chunk + count * tile / tiles, to = chunk + count * (tile + 1) / tiles;
                const Prefetch prefetch =
                    tiles == 1 ? Prefetch{data + kLead, 64}
                               : Prefetch{data + bytes + bytes * tile / tiles, std::max(1, apart / tiles)};
                if (unpack)
                    Tile::run(whole, unpacked.data(), x, from, to - from, prefetch, sums);
                else
                    Tile::run(weights, data, x, from, to - from, prefetch, sums);
                finish<L>(weights, panel, sums, to - from, out + size_t(from) * out_stride, out_stride, add);
            }
        }
    }
}

}  // namespace
}  // namespace medusa
