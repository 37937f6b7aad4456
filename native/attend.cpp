// What becomes of queries, keys and values: rotated to their positions, kept for the pass, attended to. Which queries are
// attended to together, and where the keys and values lie that they see.
//
// The rows of one head of keys stand together, so that its keys and values are read once for many of them. Which
// queries go together changes no bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "model.h"

namespace medusa {
namespace {

// Their scores have to stay in the cache.
constexpr int kMostTogether = 24;

}  // namespace

void Model::rotate_and_keep(const Layer& layer, int index, int thread, std::vector<uint16_t>& halves) {
    const int dim = shape_.head_dim, half = dim / 2;
    const Share mine(int(states_.size()), thread, threads_->count());
    for (int row = mine.begin; row < mine.end; ++row) {
        float* qkv = &buffers_.wide[size_t(row) * wide_width_];
        for (int head = 0; head < shape_.heads + shape_.kv_heads; ++head) {
            float* x = qkv + head * dim;
            const float* norm = head < shape_.heads ? layer.query_norm : layer.key_norm;
            if (norm) kernels_.norm(x, norm, shape_.norm_epsilon, dim, x);
            kernels_.rotate(x, &cosines_[size_t(row) * half], &sines_[size_t(row) * half], half);
        }
        // Keys and values stand one behind the other, as they are kept. Those that will be kept as fp16 are rounded before
        // any row reads them: a row finds the same ones whether they are committed or not.
        float *from = qkv + shape_.heads * dim, *to = drafted(index, row, 0);
        if (cache_.shape().half) {
            halves.resize(2 * kv_width_);
            kernels_.narrow(from, 2 * kv_width_, halves.data());
            kernels_.widen(halves.data(), 2 * kv_width_, to);
        } else {
            std::memcpy(to, from, 2 * kv_width_ * sizeof(float));
        }
    }
}

// Query u is that of head u % group of the group of heads kv = u / group / n, in row u / group % n.
void Model::plan_attention(int thread, AttentionWork& work) const {
    const int group = shape_.heads / shape_.kv_heads, n = int(states_.size());
    const Share mine(n * shape_.heads, thread, threads_->count());
    for (int unit = mine.begin, end; unit < mine.end; unit = end) {
        const int row = unit / group % n, kv = unit / group / n, most = std::min(mine.end, unit + kMostTogether);
        int shared = states_[row].path_count;
        for (end = unit; end < most && end / group / n == kv; ++end) {
            const int other = end / group % n;
            if (other == row) continue;
            if (states_[other].sequence != states_[row].sequence || first_seen(other) != first_seen(row)) break;
            shared = std::min(shared, shared_path(row, other));
        }
        work.plan.push_back({unit, end - unit, shared});
    }
}

int64_t Model::first_seen(int row) const {
    return shape_.window ? std::max<int64_t>(0, states_[row].position + 1 - shape_.window) : 0;
}

int Model::shared_path(int row, int other) const {
    const RowState &a = states_[row], &b = states_[other];
    const int *path = &paths_[a.path_begin], count = std::min(a.path_count, b.path_count);
    return int(std::mismatch(path, path + count, &paths_[b.path_begin]).first - path);
}

void Model::attend(int layer, AttentionWork& work) {
    for (const Together& together : work.plan) attend_together(layer, together, work);
}

void Model::attend_together(int layer, const Together& together, AttentionWork& work) {
    const int dim = shape_.head_dim, group = shape_.heads / shape_.kv_heads, n = int(states_.size());
    const int kv = together.first / group / n, first_row = together.first / group % n;
    const int64_t first = first_seen(first_row);
    const int begin = int(std::max<int64_t>(0, first - states_[first_row].committed)), shared = std::max(begin, together.shared);
    work.clear();
    add_committed(layer, kv, first_row, work);
    add_drafted(layer, kv, first_row, begin, shared, work);
    const int runs = int(work.keys.size());
    int64_t longest = 0;
    for (int i = 0; i < together.count; ++i) {
        const int unit = together.first + i, row = unit / group % n, head = kv * group + unit % group;
        const bool same = i && work.queries.back().row == row;
        work.starts.push_back(same ? work.starts.back() : int(work.keys.size()));
        if (!same) add_drafted(layer, kv, row, shared, states_[row].path_count, work);
        work.queries.push_back({&buffers_.wide[size_t(row) * wide_width_ + head * dim],
                                &buffers_.attended[(size_t(row) * shape_.heads + head) * dim], row, nullptr, nullptr,
                                int(work.keys.size()) - work.starts.back()});
        longest = std::max(longest, states_[row].position + 1 - first);
    }
    // Only now, since vectors move as they grow.
    for (int i = 0; i < together.count; ++i) {
        work.queries[i].keys = work.keys.data() + work.starts[i];
        work.queries[i].values = work.values.data() + work.starts[i];
    }
    Attention attention = work.prepare(dim, int(first % 8), int(longest));
    attention.scale = 1.0f / std::sqrt(float(dim));
    attention.runs = runs;
    kernels_.attend(attention);
}

void Model::add_committed(int layer, int kv, int row, AttentionWork& work) const {
    const RowState& state = states_[row];
    const size_t keys = page_offset(cache_.shape(), layer, 0, kv), values = page_offset(cache_.shape(), layer, 1, kv);
    for (int64_t p = first_seen(row); p < state.committed;) {
        const int from = int(p % kPage), count = int(std::min<int64_t>(kPage - from, state.committed - p));
        Page& page = *state.sequence->pages[p / kPage];
        const size_t start = size_t(from) * shape_.head_dim;
        if (cache_.shape().half) {
            work.keys.push_back({nullptr, count, shape_.head_dim, page.halves() + keys + start});
            work.values.push_back({nullptr, count, shape_.head_dim, page.halves() + values + start});
        } else {
            work.add(page.floats() + keys + start, page.floats() + values + start, count, shape_.head_dim);
        }
        p += count;
    }
}

// The rows [from, to) of a row's path; those that stand one behind the other in this pass are one run.
void Model::add_drafted(int layer, int kv, int row, int from, int to, AttentionWork& work) const {
    const int* path = &paths_[states_[row].path_begin];
    for (int i = from; i < to;) {
        int count = 1;
        while (i + count < to && path[i + count] == path[i] + count) ++count;
        const float* keys = drafted(layer, path[i], 0) + kv * shape_.head_dim;
        work.add(keys, keys + kv_width_, count, 2 * kv_width_);
        i += count;
    }
}

void AttentionWork::clear() {
    queries.clear();
    keys.clear();
    values.clear();
    starts.clear();
}

void AttentionWork::add(const float* key, const float* value, int count, int stride) {
    keys.push_back({key, count, stride});
    values.push_back({value, count, stride});
}

Attention AttentionWork::prepare(int head_dim, int skip, int positions) {
    Attention a{};
    a.head_dim = head_dim;
    a.keys = keys.data();
    a.values = values.data();
    a.queries = queries.data();
    a.count = int(queries.size());
    a.skip = skip;
    a.stride = round_up(skip + positions, 8) + 8;
    // Longer texts come soon: room for them too.
    if (const size_t size = size_t(a.count + 1) * a.stride; scores.size() < size) scores.resize(size + size / 2);
    packed.resize(size_t(a.count + 1) * head_dim);
    factors.resize(a.count);
    widened.resize(size_t(kPage) * head_dim);
    a.widened = widened.data();
    a.scores = scores.data();
    a.packed = packed.data();
    a.factors = factors.data();
    return a;
}

}  // namespace medusa
