#include "packing.h"

#include <atomic>
#include <cmath>
#include <cstring>

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

// What turns a channel's weights into int8, and its scale.
float factor_of(const float* row, int k, float* scale) {
    float largest = 0.0f;
    for (int i = 0; row && i < k; ++i) largest = std::fmax(largest, std::fabs(row[i]));
    *scale = largest / 127.0f;
    // Below this the factor would overflow; such a channel is as good as zero.
    return largest < 1e-30f ? 0.0f : 127.0f / largest;
}

constexpr int kMany = 1 << 30;

int rounded(float x) { return static_cast<int>(std::nearbyint(x)); }

// The weights of one output channel and group as codes 0 ... 15 of evenly spaced values.
struct Codes {
    int code[kGroup] = {};
    int highest = 0;

    // The fewest values that do; false where 16 do not.
    bool find(const float* w) {
        float low = w[0], high = w[0];
        for (int i = 1; i < kGroup; ++i) low = std::fmin(low, w[i]), high = std::fmax(high, w[i]);
        if (high == low) high = low + 1.0f;
        for (highest = 1; highest < 16; ++highest)
            if (fits(w, low, highest / (double(high) - low))) return true;
        return false;
    }

private:
    bool fits(const float* w, double low, double per_value) {
        for (int i = 0; i < kGroup; ++i) {
            const double place = (w[i] - low) * per_value;
            // Values that were computed as scale * code + start are even to within some roundings. (Not a number is not.)
            if (!(std::fabs(place - std::nearbyint(place)) < 1e-3)) return false;
            code[i] = static_cast<int>(place + 0.5);
        }
        return true;
    }
};

// The step and start that give the int8 weights of these codes, or the closest to that.
struct Line {
    int step = 0, start = 0;

    void fit(const Codes& codes, const int* weights) {
        int low = 0, high = 0;  // any weight of the first and last code
        for (int i = 0; i < kGroup; ++i)
            if (codes.code[i] == 0) low = weights[i];
            else if (codes.code[i] == codes.highest) high = weights[i];
        const int middle = 256 * (high - low) / codes.highest, reach = 256 / codes.highest + 1;
        int best = -kMany;
        for (int candidate = middle - reach; candidate <= middle + reach; ++candidate) {
            int least = -kMany, most = kMany;  // that the start may be
            for (int i = 0; i < kGroup; ++i) {
                least = std::max(least, 256 * weights[i] - codes.code[i] * candidate);
                most = std::min(most, 256 * weights[i] + 255 - codes.code[i] * candidate);
            }
            // Where nothing fits, below rather than above: 127 and one more would be -128.
            if (most - least > best) best = most - least, step = candidate, start = most < least ? most : (most + least) >> 1;
        }
    }
};

// One output channel's group, as lane c of its panel; false where it takes more than 16 values.
bool pack_group(const float* w, float factor, int c, uint8_t* to) {
    Codes codes;
    if (!codes.find(w)) return false;
    int weights[kGroup];
    for (int i = 0; i < kGroup; ++i) weights[i] = rounded(w[i] * factor);
    Line line;
    line.fit(codes, weights);
    const int16_t both[2] = {static_cast<int16_t>(line.step), static_cast<int16_t>(line.start)};
    std::memcpy(to + 2 * c, &both[0], 2);
    std::memcpy(to + 2 * (kPanel + c), &both[1], 2);
    for (int j = 0; j < kGroup / 8; ++j) {
        uint16_t words[2] = {};
        for (int i = 0; i < 8; ++i) words[i % 2] |= uint16_t(codes.code[8 * j + i] << 4 * (i / 2));
        std::memcpy(to + 4 * kPanel + (size_t(j) * kPanel + c) * 4, words, 4);
    }
    return true;
}

}  // namespace

void pack_int8(const float* weights, int n, int k, int8_t* packed, float* scale, int threads) {
    each_panel(n, threads, [&](int panel) {
        int8_t* to = packed + size_t(panel) * kPanel * k;
        for (int c = 0; c < kPanel; ++c) {
            const int channel = panel * kPanel + c;
            const float* row = channel < n ? weights + size_t(channel) * k : nullptr;
            const float factor = factor_of(row, k, &scale[channel]);
            for (int i = 0; i < k; ++i)
                to[size_t(i / 2) * 2 * kPanel + 2 * c + i % 2] = row ? static_cast<int8_t>(rounded(row[i] * factor)) : int8_t{0};
        }
    });
}

bool pack_int4(const float* weights, int n, int k, uint8_t* packed, float* scale, int threads) {
    if (k % kGroup) return false;
    const size_t bytes = size_t(k) / kGroup * kGroupBytes;
    std::atomic<bool> possible{true};
    each_panel(n, threads, [&](int panel) {
        uint8_t* to = packed + panel * bytes;
        std::memset(to, 0, bytes);
        for (int c = 0; c < kPanel && possible; ++c) {
            const int channel = panel * kPanel + c;
            const float* row = channel < n ? weights + size_t(channel) * k : nullptr;
            const float factor = factor_of(row, k, &scale[channel]);
            for (int g = 0; row && g < k / kGroup; ++g)
                if (!pack_group(row + g * kGroup, factor, c, to + size_t(g) * kGroupBytes)) {
                    possible = false;
                    break;
                }
        }
    });
    return possible;
}

void unpack_group(const uint8_t* group, int8_t* out) {
    int16_t lines[2][kPanel];
    uint16_t codes[kPanel * kGroup / 4];
    std::memcpy(lines, group, sizeof lines);
    std::memcpy(codes, group + sizeof lines, sizeof codes);
    for (int pair = 0; pair < kGroup / 2; ++pair)
        for (int lane = 0; lane < 2 * kPanel; ++lane) {
            const int code = codes[pair / 4 * 2 * kPanel + lane] >> 4 * (pair % 4) & 15;
            *out++ = static_cast<int8_t>(static_cast<int16_t>(code * lines[0][lane / 2] + lines[1][lane / 2]) >> 8);
        }
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
    const int8_t* from = static_cast<const int8_t*>(linear.weights) + start;  // heads and embeddings are never int4
    for (int i = 0; i < linear.k; ++i)
        out[i] = float(from[size_t(i / 2) * 2 * kPanel + 2 * c + i % 2]) * linear.scale[row];
}

}  // namespace medusa
