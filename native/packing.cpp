#include "packing.h"

#include <cmath>

#include "threads.h"

namespace medusa {
namespace {

// Calls `pack(panel)` for all panels, shared out over threads.
template <class F>
void each_panel(int n, int threads, F pack) {
    const int panels = round_up(n, kPanel) / kPanel;
    Threads pool(threads);
    pool.run([&](int thread) {
        const Share share(panels, thread, pool.count());
        for (int panel = share.begin; panel < share.end; ++panel) pack(panel);
    });
}

}  // namespace

void pack_int8(const float* weights, int n, int k, int8_t* packed, float* scale, int threads) {
    each_panel(n, threads, [&](int panel) {
        int8_t* to = packed + size_t(panel) * kPanel * k;
        for (int c = 0; c < kPanel; ++c) {
            const int channel = panel * kPanel + c;
            const float* row = channel < n ? weights + size_t(channel) * k : nullptr;
            float largest = 0.0f;
            for (int i = 0; row && i < k; ++i) largest = std::fmax(largest, std::fabs(row[i]));
            // Below this the factor would overflow; such a channel is as good as zero.
            const float factor = largest < 1e-30f ? 0.0f : 127.0f / largest;
            scale[channel] = largest / 127.0f;
            for (int i = 0; i < k; ++i)
                to[size_t(i / 2) * 2 * kPanel + 2 * c + i % 2] =
                    row ? static_cast<int8_t>(std::nearbyint(row[i] * factor)) : int8_t{0};
        }
    });
}

void pack_fp32(const float* weights, int n, int k, float* packed, int threads) {
    each_panel(n, threads, [&](int panel) {
        float* to = packed + size_t(panel) * kPanel * k;
        for (int c = 0; c < kPanel; ++c) {
            const int channel = panel * kPanel + c;
            for (int i = 0; i < k; ++i)
                to[size_t(i) * kPanel + c] = channel < n ? weights[size_t(channel) * k + i] : 0.0f;
        }
    });
}

void unpack_row(const Linear& linear, int row, float* out) {
    const int panel = row / kPanel, c = row % kPanel;
    const size_t start = size_t(panel) * kPanel * linear.k;
    if (linear.type == WeightType::fp32) {
        const float* from = static_cast<const float*>(linear.weights) + start;
        for (int i = 0; i < linear.k; ++i) out[i] = from[size_t(i) * kPanel + c];
        return;
    }
    const int8_t* from = static_cast<const int8_t*>(linear.weights) + start;
    for (int i = 0; i < linear.k; ++i)
        out[i] = float(from[size_t(i / 2) * 2 * kPanel + 2 * c + i % 2]) * linear.scale[row];
}

}  // namespace medusa
