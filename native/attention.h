// Attention of queries that share a head of keys and values.
//
// The key at position p takes slot p of every sum, whether it is committed, drafted in this call or being prefilled:
// all scores first, then the maximum, then exp, then sums by lanes p mod 8, then values in the order of positions.
// Keys and values that several rows see are read once for all of them, page by page; a sum that goes on over a page's
// end rests in memory, which changes no bit of it.
#pragma once

#include <algorithm>

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

constexpr int kAhead = 12;  // keys or values to fetch ahead

// Fetches what is needed after place i of a run: the key or value kAhead places behind it, be it on the next run; where
// they are kept as fp16, the same place of the next run, since this one has been widened by now.
template <class L>
void fetch_ahead(const Run& run, const Run& next, int i, int from, int channels) {
    if (next.halves) return L::prefetch(reinterpret_cast<const float*>(next.halves + size_t(i) * next.stride + from));
    const int at = i + kAhead;
    const float* target = at < run.count ? run.first + size_t(at) * run.stride : next.first + size_t(at - run.count) * next.stride;
    for (int d = 0; d < channels; d += 16) L::prefetch(target + from + d);
}

// Calls f(i, keys) for keys i ... i + 3 of a run; at its end the last one stands in for those that are missing.
template <class L, class F>
void each_four(const Run& keys, const Run* next, int head_dim, F f) {
    for (int i = 0; i < keys.count; i += 4) {
        const float* k[4];
        for (int j = 0; j < 4; ++j) {
            k[j] = keys.first + size_t(std::min(i + j, keys.count - 1)) * keys.stride;
            if (next) fetch_ahead<L>(keys, *next, i + j, 0, head_dim);
        }
        f(i, k);
    }
}

// Products with keys, eight channels in a register: each is a sum by lanes d mod 8.
template <class L>
struct Scores {
    static constexpr int kTogether = 3, kStep = 1;

    static void pack(const Query* queries, int count, int head_dim, float* packed) {
        for (int j = 0; j < count; ++j) std::copy_n(queries[j].in, head_dim, packed + size_t(j) * head_dim);
    }

    // scores (count, stride) = products of `count` queries, one behind the other, with the keys of a run. Up to three
    // slots behind them are written too.
    static void tile(const float* queries, int count, int head_dim, const Run& keys, const Run* next, float scale,
                     float* scores, int stride) {
        const auto run = count == 1 ? tile_of<1> : count == 2 ? tile_of<2> : tile_of<3>;
        run(queries, head_dim, keys, next, scale, scores, stride);
    }

    template <int QUERIES>
    static void tile_of(const float* queries, int head_dim, const Run& keys, const Run* next, float scale, float* scores,
                        int stride) {
        each_four<L>(keys, next, head_dim, [&](int i, const float* const k[4]) {
            four<QUERIES>(queries, k, scale, head_dim, scores + i, stride);
        });
    }

    template <int QUERIES>
    static void four(const float* q, const float* const k[4], float scale, int head_dim, float* scores, int stride) {
        typename L::V sum[QUERIES][4];
        MEDUSA_UNROLL
        for (int j = 0; j < QUERIES; ++j)
            MEDUSA_UNROLL
            for (int i = 0; i < 4; ++i) sum[j][i] = L::set(0.0f);
        for (int d = 0; d < head_dim; d += 8) {
            typename L::V x[QUERIES];
            MEDUSA_UNROLL
            for (int j = 0; j < QUERIES; ++j) x[j] = L::load(q + size_t(j) * head_dim + d);
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
};

// All queries with one run, in even tiles; `fetch`: whether to fetch the keys, and then those of `next`.
template <class S>
void score_run(const float* packed, int count, int head_dim, const Run& keys, const Run* next, float scale, float* scores,
               int stride) {
    const int units = (count + S::kStep - 1) / S::kStep, most = S::kTogether / S::kStep, tiles = (units + most - 1) / most;
    for (int tile = 0; tile < tiles; ++tile) {
        const int from = units * tile / tiles * S::kStep, to = std::min(count, units * (tile + 1) / tiles * S::kStep);
        S::tile(packed + size_t(from) * head_dim, to - from, head_dim, keys, tile ? nullptr : next, scale,
                scores + size_t(from) * stride, stride);
    }
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

// out (WIDTH registers of channels from `channel` on) += over the run's positions, in order, weight * value.
template <class L, int QUERIES, int WIDTH>
void add_values(const Query* queries, const float* weights, int stride, const Run& values, const Run* next, int channel) {
    typename L::V sum[QUERIES][WIDTH];
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        MEDUSA_UNROLL
        for (int i = 0; i < WIDTH; ++i) sum[j][i] = L::load(queries[j].out + channel + L::kLanes * i);
    const float* value = values.first + channel;
    for (int p = 0; p < values.count; ++p, value += values.stride) {
        if (next) fetch_ahead<L>(values, *next, p, channel, WIDTH * L::kLanes);
        typename L::V w[QUERIES];
        MEDUSA_UNROLL
        for (int j = 0; j < QUERIES; ++j) w[j] = L::set(weights[size_t(j) * stride + p]);
        MEDUSA_UNROLL
        for (int i = 0; i < WIDTH; ++i) {
            auto v = L::load(value + L::kLanes * i);
            MEDUSA_UNROLL
            for (int j = 0; j < QUERIES; ++j) sum[j][i] = L::fma(w[j], v, sum[j][i]);
        }
    }
    MEDUSA_UNROLL
    for (int j = 0; j < QUERIES; ++j)
        MEDUSA_UNROLL
        for (int i = 0; i < WIDTH; ++i) L::store(queries[j].out + channel + L::kLanes * i, sum[j][i]);
}

// Channels [channel, head_dim) of up to QUERIES queries; returns the first channel that is left over.
template <class L, int QUERIES, int WIDTH>
int add_channels(const Query* queries, int count, const float* weights, int stride, const Run& values, const Run* next,
                 int channel, int head_dim) {
    if constexpr (QUERIES > 1)
        if (count < QUERIES)
            return add_channels<L, QUERIES - 1, WIDTH>(queries, count, weights, stride, values, next, channel, head_dim);
    for (; channel + WIDTH * L::kLanes <= head_dim; channel += WIDTH * L::kLanes)
        add_values<L, QUERIES, WIDTH>(queries, weights, stride, values, next, channel);
    return channel;
}

// QUERIES: how many share a load of values, with four sums each in registers. W: lanes of any width, since channels
// have nothing to do with each other.
template <class L, class W, int QUERIES>
void add_run(const Query* queries, int count, int head_dim, const float* weights, int stride, const Run& values,
             const Run* next) {
    const int tiles = (count + QUERIES - 1) / QUERIES;
    for (int tile = 0; tile < tiles; ++tile) {
        const int from = count * tile / tiles, size = count * (tile + 1) / tiles - from;
        const float* w = weights + size_t(from) * stride;
        const Run* ahead = tile ? nullptr : next;
        int channel = add_channels<W, QUERIES, 4>(queries + from, size, w, stride, values, ahead, 0, head_dim);
        channel = add_channels<W, QUERIES, 1>(queries + from, size, w, stride, values, ahead, channel, head_dim);
        if constexpr (W::kLanes > L::kLanes) add_channels<L, QUERIES, 1>(queries + from, size, w, stride, values, ahead, channel, head_dim);
    }
}

// Calls f(first, count) for the queries of each row.
template <class F>
void each_row(const Attention& a, F f) {
    for (int from = 0, to; from < a.count; from = to) {
        for (to = from + 1; to < a.count && a.queries[to].row == a.queries[from].row;) ++to;
        f(from, to - from);
    }
}

// The run after run i, to be fetched while this one is computed. Where there is none of the same kind, floats fetch ahead
// in their own run, and halves nothing.
inline const Run* next_of(const Run* runs, int count, int i) {
    if (i + 1 < count && !runs[i].halves == !runs[i + 1].halves) return &runs[i + 1];
    return runs[i].halves ? nullptr : &runs[i];
}

// A run as floats: those kept as fp16 are widened once for all queries.
template <class L, class W>
Run widened(const Run& run, int head_dim, float* to) {
    if (!run.halves) return run;
    int i = 0;
    for (; i + W::kLanes <= run.count * head_dim; i += W::kLanes) W::store(to + i, W::load_half(run.halves + i));
    for (; i < run.count * head_dim; i += L::kLanes) L::store(to + i, L::load_half(run.halves + i));
    return {to, run.count, head_dim};
}

// S: how scores of many queries are made; those with a row's own keys, which are few, come from Scores<L>.
template <class L, class S, class W, int QUERIES>
void attend(const Attention& a) {
    const int dim = a.head_dim, stride = a.stride;
    S::pack(a.queries, a.count, dim, a.packed);
    for (int j = 0; j < a.count; ++j) std::fill_n(a.scores + size_t(j) * stride, a.skip, -INFINITY);
    int shared = a.skip;
    for (int i = 0; i < a.runs; shared += a.keys[i++].count)
        score_run<S>(a.packed, a.count, dim, widened<L, W>(a.keys[i], dim, a.widened), next_of(a.keys, a.runs, i), a.scale,
                     a.scores + shared, stride);
    each_row(a, [&](int first, int count) {
        const Query& query = a.queries[first];
        float* scores = a.scores + size_t(first) * stride;
        int place = shared;
        // The queries of a row lie one behind the other.
        for (int i = 0; i < query.runs; place += query.keys[i++].count)
            score_run<Scores<L>>(query.in, count, dim, query.keys[i], nullptr, a.scale, scores + place, stride);
        for (int j = 0; j < count; ++j) a.factors[first + j] = 1.0f / exponentials<L>(scores + size_t(j) * stride, place);
    });
    for (int j = 0; j < a.count; ++j) std::fill_n(a.queries[j].out, dim, 0.0f);
    int place = a.skip;
    for (int i = 0; i < a.runs; place += a.values[i++].count)
        add_run<L, W, QUERIES>(a.queries, a.count, dim, a.scores + place, stride, widened<L, W>(a.values[i], dim, a.widened),
                               next_of(a.values, a.runs, i));
    each_row(a, [&](int first, int count) {
        const Query& query = a.queries[first];
        const float* weights = a.scores + size_t(first) * stride + shared;
        for (int i = 0; i < query.runs; weights += query.values[i++].count)
            add_run<L, W, QUERIES>(a.queries + first, count, dim, weights, stride, query.values[i], nullptr);
    });
    for (int j = 0; j < a.count; ++j)
        for (int d = 0; d < dim; d += 8)
            L::store(a.queries[j].out + d, L::mul(L::load(a.queries[j].out + d), L::set(a.factors[j])));
}

}  // namespace
}  // namespace medusa
