#include "heads.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace medusa {

Heads::Heads(HeadsWeights weights, Model& model)
    : weights_(std::move(weights)),
      model_(model),
      width_(round_up(weights_.hidden, kPanel)),
      stride_(round_up(weights_.draft, kPanel)),
      type_(weights_.projections.front().type) {}

// Rows stand head by head, (K, n), so that each head's own weights see their rows side by side.
void Heads::propose(const float* hidden, const int64_t* roots, int n, int top, int64_t* tokens,
                    float* log_probabilities) {
    for (int i = 0; i < n; ++i)
        if (roots[i] < 0 || roots[i] >= model_.shape().vocabulary)
            throw std::invalid_argument("token " + std::to_string(roots[i]) + " is not in the vocabulary");
    const int rows = n * weights_.heads, wide = round_up(weights_.heads * weights_.hidden, kPanel);
    features_.resize(size_t(rows) * width_);
    inner_.resize(size_t(n) * wide + size_t(rows) * width_);
    other_.resize(weights_.has_root ? size_t(n) * wide : 0);
    roots_.resize(weights_.has_root ? size_t(n) * width_ : 0);
    logits_.resize(size_t(rows) * stride_);
    quantised_.resize(size_t(rows) * weights_.hidden);
    scales_.resize(size_t(rows) * blocks_of(weights_.hidden));
    for (int i = 0; weights_.has_root && i < n; ++i) model_.embed(roots[i], &roots_[size_t(i) * width_]);
    Threads& threads = model_.threads();
    threads.run([&](int thread) {
        run(thread, hidden, roots, n);
        threads.meet();
        const Share mine(rows, thread, threads.count());
        for (int row = mine.begin; row < mine.end; ++row) choose(row, n, top, tokens, log_probabilities);
    });
}

void Heads::run(int thread, const float* hidden, const int64_t*, int n) {
    Threads& threads = model_.threads();
    const Kernels& kernels = model_.kernels();
    const int size = weights_.hidden, heads = weights_.heads, rows = n * heads;
    const int wide = round_up(heads * size, kPanel);
    if (weights_.has_root) {
        quantise(roots_.data(), width_, n, thread);
        threads.meet();
        multiply(weights_.root, roots_.data(), width_, 0, n, other_.data(), wide, thread);
        threads.meet();
    }
    if (weights_.has_blocks) {
        quantise(hidden, size, n, thread);
        threads.meet();
        multiply(weights_.first, hidden, size, 0, n, inner_.data(), wide, thread);
        threads.meet();
    }
    const Share mine(rows, thread, threads.count());
    for (int row = mine.begin; row < mine.end; ++row) {
        const int head = row / n, i = row % n;
        float* x = &features_[size_t(row) * width_];
        std::memcpy(x, hidden + size_t(i) * size, size * sizeof(float));
        const size_t from = size_t(i) * wide + size_t(head) * size;
        if (weights_.has_blocks) kernels.residual_silu(x, &inner_[from], weights_.has_root ? &other_[from] : nullptr, size);
    }
    threads.meet();
    for (const auto& layer : weights_.rest) {
        quantise(features_.data(), width_, rows, thread);
        threads.meet();
        for (int head = 0; head < heads; ++head)
            multiply(layer[head], features_.data(), width_, head * n, n, &inner_[size_t(head) * n * width_], width_, thread);
        threads.meet();
        for (int row = mine.begin; row < mine.end; ++row)
            kernels.residual_silu(&features_[size_t(row) * width_], &inner_[size_t(row) * width_], nullptr, size);
        threads.meet();
    }
    quantise(features_.data(), width_, rows, thread);
    threads.meet();
    if (weights_.projections.size() == 1)
        return multiply(weights_.projections[0], features_.data(), width_, 0, rows, logits_.data(), stride_, thread);
    for (int head = 0; head < heads; ++head)
        multiply(weights_.projections[head], features_.data(), width_, head * n, n, &logits_[size_t(head) * n * stride_],
                 stride_, thread);
}

void Heads::quantise(const float* from, int stride, int rows, int thread) {
    if (type_ == WeightType::fp32) return;
    const int size = weights_.hidden, blocks = blocks_of(size);
    const Share mine(rows * blocks, thread, model_.threads().count());
    for (int unit = mine.begin; unit < mine.end; ++unit) {
        const int row = unit / blocks, first = unit % blocks * kBlock;
        model_.kernels().quantise(from + size_t(row) * stride + first, std::min(kBlock, size - first),
                                  &quantised_[size_t(row) * size + first], &scales_[unit]);
    }
}

void Heads::multiply(const Linear& linear, const float* from, int stride, int first_row, int rows, float* out,
                     int out_stride, int thread) {
    Activations x;
    x.blocks = blocks_of(linear.k);
    x.stride = type_ == WeightType::int8 ? linear.k : stride;
    x.quantised = quantised_.data() + size_t(first_row) * linear.k;
    x.scales = scales_.data() + size_t(first_row) * x.blocks;
    x.values = from + size_t(first_row) * stride;
    const Share panels(linear.panels(), thread, model_.threads().count());
    model_.kernels().linear(linear, x, rows, out, out_stride, false, panels.begin, panels.end);
}

void Heads::choose(int row, int n, int top, int64_t* tokens, float* log_probabilities) {
    const int head = row / n, i = row % n;
    float* x = &logits_[size_t(row) * stride_];
    std::fill(x + weights_.draft, x + stride_, -INFINITY);
    const float inverse = weights_.inverse_temperatures[head];
    const float total = model_.kernels().log_sum_exp(x, stride_, inverse);
    int64_t* best = tokens + (size_t(i) * weights_.heads + head) * top;
    float* value = log_probabilities + (size_t(i) * weights_.heads + head) * top;
    std::fill(value, value + top, -INFINITY);
    std::fill(best, best + top, INT64_MAX);
    for (int id = 0; id < weights_.draft; ++id) {
        if (!(x[id] >= value[top - 1])) continue;
        const int64_t token = weights_.tokens.empty() ? id : weights_.tokens[id];
        int at = top;
        while (at > 0 && (x[id] > value[at - 1] || (x[id] == value[at - 1] && token < best[at - 1]))) --at;
        if (at == top) continue;
        std::copy_backward(best + at, best + top - 1, best + top);
        std::copy_backward(value + at, value + top - 1, value + top);
        best[at] = token;
        value[at] = x[id];
    }
    for (int rank = 0; rank < top; ++rank) value[rank] = value[rank] * inverse - total;
}

}  // namespace medusa
