// Attention of a row's queries over the keys and values of the head that they share.
//
// The key at position p takes slot p of every sum, whether it is committed, drafted in this call or being prefilled:
// all scores first, then the maximum, then exp, then sums by lanes p mod 8, then values in the order of positions.
#pragma once

#include "kernels.h"
#include "lanes.h"

// Sums are kept in arrays of registers, which they are only where the loops over them are unrolled.
#if defined(__clang__)
#define MEDUSA_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define MEDUSA_UNROLL _Pragma("GCC unroll 16")
#else
#define MEDUSA_UNROLL
#endif

namespace medusa {
namespace {

constexpr int kAhead = 12;  // keys or values to fetch ahead: they lie one behind the other, but start anew on each page

// Products of QUERIES queries with four keys; each is a sum by lanes d mod 8.
template <class L, int QUERIES>
void four_scores(const float* const* q, const float* const k[4], float scale, int head_dim, float* scores, int stride) {
    typename L::V sum[QUERIES][4];
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        MEDUSA_UNROLL
        for (int i = 0; i < 4; ++i) sum[j][i] = L::set(0.0f);
    for (int d = 0; d < head_dim; d += 8) {
        typename L::V x[QUERIES];
        MEDUSA_UNROLL
        for (int j = 0; j < QUERIES; ++j) x[j] = L::load(q[j] + d);
        MEDUSA_UNROLL
        for (int i = 0; i < 4; ++i) {
            auto key = L::load(k[i] + d);
            MEDUSA_UNROLL
            for (int j = 0; j < QUERIES; ++j) sum[j][i] = L::fma(x[j], key, sum[j][i]);
        }
    }
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j) {
        float* to = scores + size_t(j) * stride;
        L::store_sums(to, sum[j][0], sum[j][1], sum[j][2], sum[j][3]);
        MEDUSA_UNROLL
        for (int i = 0; i < 4; ++i) to[i] *= scale;
    }
}

// scores[skip ...]: products with all keys. Those before `skip` stay as they are. Returns the number of positions.
template <class L, int QUERIES>
int all_scores(const float* const* q, float scale, int head_dim, const Run* runs, int count, int skip, float* scores,
               int stride) {
    const float* keys[4];
    int waiting = 0, place = skip;
    for (int run = 0; run < count; ++run) {
        const float* key = runs[run].first;
        for (int i = 0; i < runs[run].count; ++i, key += runs[run].stride) {
            keys[waiting++] = key;
            for (int d = 0; d < head_dim; d += 16) L::prefetch(key + kAhead * runs[run].stride + d);
            if (waiting < 4) continue;
            four_scores<L, QUERIES>(q, keys, scale, head_dim, scores + place, stride);
            place += 4;
            waiting = 0;
        }
    }
    if (waiting) {
        for (int i = waiting; i < 4; ++i) keys[i] = keys[0];
        four_scores<L, QUERIES>(q, keys, scale, head_dim, scores + place, stride);
        place += waiting;
    }
    return place;
}

// scores -> exp(scores - maximum), padded with zeros to a multiple of 8; returns their sum.
template <class L>
float exponentials(float* scores, int count) {
    const int padded = round_up(count, 8);
    for (int i = count; i < padded; ++i) scores[i] = -INFINITY;
    auto most = L::set(-INFINITY);
    for (int i = 0; i < padded; i += 8) most = L::max(L::load(scores + i), most);
    float lanes[8], maximum = -INFINITY;
    L::store(lanes, most);
    for (float lane : lanes) maximum = lane > maximum ? lane : maximum;
    auto shift = L::set(maximum), sum = L::set(0.0f);
    for (int i = 0; i < padded; i += 8) {
        auto e = exponential<L>(L::sub(L::load(scores + i), shift));
        L::store(scores + i, e);
        sum = L::add(sum, e);
    }
    return L::sum(sum);
}

// out (WIDTH * 8 channels from `channel` on) = sum over positions, in order, of weight * value, times `factors`.
template <class L, int QUERIES, int WIDTH>
void weighted(const float* weights, int stride, const float* factors, const Run* runs, int count, int channel,
              float* const* out) {
    typename L::V sum[QUERIES][WIDTH];
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        MEDUSA_UNROLL
        for (int i = 0; i < WIDTH; ++i) sum[j][i] = L::set(0.0f);
    for (int run = 0; run < count; ++run) {
        const float* value = runs[run].first + channel;
        for (int p = 0; p < runs[run].count; ++p, ++weights, value += runs[run].stride) {
            for (int i = 0; i < WIDTH; i += 2) L::prefetch(value + kAhead * runs[run].stride + 8 * i);
            typename L::V w[QUERIES];
            MEDUSA_UNROLL
            for (int j = 0; j < QUERIES; ++j) w[j] = L::set(weights[size_t(j) * stride]);
            MEDUSA_UNROLL
            for (int i = 0; i < WIDTH; ++i) {
                auto v = L::load(value + 8 * i);
                MEDUSA_UNROLL
                for (int j = 0; j < QUERIES; ++j) sum[j][i] = L::fma(w[j], v, sum[j][i]);
            }
        }
    }
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        MEDUSA_UNROLL
        for (int i = 0; i < WIDTH; ++i) L::store(out[j] + channel + 8 * i, L::mul(sum[j][i], L::set(factors[j])));
}

template <class L, int QUERIES>
void attend_together(const float* const* queries, float scale, int head_dim, const Run* keys, const Run* values, int runs,
                     int skip, float* scores, int stride, float* const* out) {
    float factors[QUERIES];
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        for (int i = 0; i < skip; ++i) scores[size_t(j) * stride + i] = -INFINITY;
    const int count = all_scores<L, QUERIES>(queries, scale, head_dim, keys, runs, skip, scores, stride);
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j) factors[j] = 1.0f / exponentials<L>(scores + size_t(j) * stride, count);
    int channel = 0;
    for (; channel + 32 <= head_dim; channel += 32)
        weighted<L, QUERIES, 4>(scores + skip, stride, factors, values, runs, channel, out);
    for (; channel < head_dim; channel += 8)
        weighted<L, QUERIES, 1>(scores + skip, stride, factors, values, runs, channel, out);
}

// `skip`: slots before the first position, where a window cuts the keys inside a group of eight.
template <class L>
void attend(const float* const* queries, int count, float scale, int head_dim, const Run* keys, const Run* values, int runs,
            int skip, float* scores, int stride, float* const* out) {
    static_assert(kQueries == 3);
    const auto together = count == 1 ? attend_together<L, 1> : count == 2 ? attend_together<L, 2> : attend_together<L, 3>;
    together(queries, scale, head_dim, keys, values, runs, skip, scores, stride, out);
}

}  // namespace
}  // namespace medusa
