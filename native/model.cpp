#include "model.h"

#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>

namespace medusa {

void Buffers::resize(int rows, int width, int most_inputs, WeightType type) {
    type_ = type;
    wide.resize(size_t(rows) * width);
    if (type == WeightType::fp32) return;
    quantised.resize(size_t(rows) * most_inputs);
    scales.resize(size_t(rows) * blocks_of(most_inputs));
}

Model::Model(Shape shape, Weights weights, const Kernels& kernels, std::shared_ptr<Threads> threads, bool half_cache)
    : shape_(std::move(shape)),
      weights_(std::move(weights)),
      kernels_(kernels),
      threads_(std::move(threads)),
      cache_({shape_.layers, shape_.kv_heads, shape_.head_dim, half_cache}),
      qkv_width_((shape_.heads + 2 * shape_.kv_heads) * shape_.head_dim),
      kv_width_(shape_.kv_heads * shape_.head_dim),
      hidden_width_(round_up(shape_.hidden, kPanel)),
      wide_width_(round_up(std::max(qkv_width_, 2 * shape_.intermediate), kPanel)),
      logits_stride_(round_up(shape_.vocabulary, kPanel)) {}

void Model::forward(const Rows& rows, bool logits) {
    check(rows);
    prepare(rows);
    if (logits) {
        logits_.resize(wanted_.size() * logits_stride_);
        best_.resize(wanted_.size() * threads_->count());
        best_values_.resize(best_.size());
    } else {
        logits_.clear();
    }
    threads_->run([&](int thread) {
        run_layers(thread);
        project(thread, logits);
    });
}

void Model::check(const Rows& rows) {
    if (rows.count < 1) throw std::invalid_argument("a forward pass needs at least one row");
    for (int i = 0; i < rows.count; ++i) {
        const int64_t parent = rows.parents[i];
        if (rows.tokens[i] < 0 || rows.tokens[i] >= shape_.vocabulary)
            throw std::invalid_argument("token " + std::to_string(rows.tokens[i]) + " is not in the vocabulary");
        if (parent >= i || parent < -1) throw std::invalid_argument("a row's parent must come before it");
        if (parent >= 0 && rows.sequences[parent] != rows.sequences[i])
            throw std::invalid_argument("a row's parent must be of its own sequence");
        const int64_t position = parent < 0 ? cache_.at(rows.sequences[i]).length : rows.positions[parent] + 1;
        if (rows.positions[i] != position) throw std::invalid_argument("a row's position must follow its parent's");
        if (position >= shape_.context)
            throw std::invalid_argument("a row lies beyond the context of " + std::to_string(shape_.context));
    }
}

void Model::prepare(const Rows& rows) {
    const int n = rows.count, half = shape_.head_dim / 2, hidden = hidden_width_;
    handles_.assign(rows.sequences, rows.sequences + n);
    tokens_.assign(rows.tokens, rows.tokens + n);
    parents_.assign(rows.parents, rows.parents + n);
    states_.clear();
    paths_.clear();
    wanted_.clear();
    places_.assign(n, -1);
    for (int i = 0; i < n; ++i) {
        const Sequence& sequence = cache_.at(rows.sequences[i]);
        const int begin = int(paths_.size());
        if (parents_[i] >= 0) {
            const RowState above = states_[parents_[i]];
            // Reserved first: the copied range must not move.
            paths_.reserve(paths_.size() + above.path_count + 1);
            paths_.insert(paths_.end(), paths_.begin() + above.path_begin,
                          paths_.begin() + above.path_begin + above.path_count);
        }
        paths_.push_back(i);
        states_.push_back({rows.positions[i], &sequence, sequence.length, begin, int(paths_.size()) - begin});
        if (rows.wanted[i]) {
            places_[i] = int(wanted_.size());
            wanted_.push_back(i);
        }
    }
    drafted_.resize(size_t(shape_.layers) * n * 2 * kv_width_);
    cosines_.resize(size_t(n) * half);
    sines_.resize(size_t(n) * half);
    buffers_.x.resize(size_t(n) * hidden);
    buffers_.normed.resize(size_t(n) * hidden);
    buffers_.attended.resize(size_t(n) * shape_.heads * shape_.head_dim);
    const int most = std::max({hidden, shape_.heads * shape_.head_dim, shape_.intermediate});
    buffers_.resize(n, wide_width_, most, weights_.head.type);
    hidden_.resize(wanted_.size() * hidden);
    for (int i = 0; i < n; ++i) {
        for (int j = 0; j < half; ++j) {
            const float angle = float(rows.positions[i]) * shape_.inverse_frequencies[j];
            cosines_[size_t(i) * half + j] = std::cos(angle) * shape_.rope_amplitude;
            sines_[size_t(i) * half + j] = std::sin(angle) * shape_.rope_amplitude;
        }
    }
}

void Model::run_layers(int thread) {
    const int n = int(states_.size()), hidden = hidden_width_;
    const int attended = shape_.heads * shape_.head_dim;
    AttentionWork work;
    std::vector<uint16_t> halves;
    plan_attention(thread, work);
    const Share mine(n, thread, threads_->count());
    for (int i = mine.begin; i < mine.end; ++i) embed(tokens_[i], &buffers_.x[size_t(i) * hidden]);
    for (int index = 0; index < shape_.layers; ++index) {
        const Layer& layer = weights_.layers[index];
        norm_rows(layer.attention_norm, buffers_.x.data(), n, thread);
        threads_->meet();
        multiply(layer.qkv, buffers_.normed.data(), hidden, n, buffers_.wide.data(), wide_width_, false, thread);
        threads_->meet();
        rotate_and_keep(layer, index, thread, halves);
        threads_->meet();
        attend(index, work);
        threads_->meet();
        quantise_rows(buffers_.attended.data(), attended, attended, n, thread);
        threads_->meet();
        multiply(layer.output, buffers_.attended.data(), attended, n, buffers_.x.data(), hidden, true, thread);
        threads_->meet();
        norm_rows(layer.mlp_norm, buffers_.x.data(), n, thread);
        threads_->meet();
        multiply(layer.gate_up, buffers_.normed.data(), hidden, n, buffers_.wide.data(), wide_width_, false, thread);
        threads_->meet();
        quantise_rows(nullptr, wide_width_, shape_.intermediate, n, thread);
        threads_->meet();
        multiply(layer.down, buffers_.wide.data(), wide_width_, n, buffers_.x.data(), hidden, true, thread);
        threads_->meet();
    }
}

void Model::project(int thread, bool logits) {
    const int hidden = hidden_width_, count = int(wanted_.size());
    const Share mine(count, thread, threads_->count());
    for (int i = mine.begin; i < mine.end; ++i)
        kernels_.norm(&buffers_.x[size_t(wanted_[i]) * hidden], weights_.norm, shape_.norm_epsilon, shape_.hidden,
                      &hidden_[size_t(i) * hidden]);
    if (!logits || !count) return;
    threads_->meet();
    quantise_rows(hidden_.data(), hidden, shape_.hidden, count, thread);
    threads_->meet();
    multiply(weights_.head, hidden_.data(), hidden, count, logits_.data(), logits_stride_, false, thread);
    // Each thread looks through its own channels, which are still in its cache.
    const Share panels(weights_.head.panels(), thread, threads_->count());
    const int begin = panels.begin * kPanel, end = std::min(panels.end * kPanel, shape_.vocabulary);
    for (int i = 0; i < count; ++i) {
        const float* row = &logits_[size_t(i) * logits_stride_];
        const int best = end > begin ? begin + kernels_.argmax(row + begin, end - begin) : 0;
        best_[size_t(i) * threads_->count() + thread] = best;
        best_values_[size_t(i) * threads_->count() + thread] = end > begin ? row[best] : -INFINITY;
    }
}

// Norm of each row of x, ready for the next linear.
void Model::norm_rows(const float* weight, const float* from, int rows, int thread) {
    const int hidden = hidden_width_, blocks = blocks_of(shape_.hidden);
    const Share mine(rows, thread, threads_->count());
    for (int i = mine.begin; i < mine.end; ++i) {
        float* normed = &buffers_.normed[size_t(i) * hidden];
        kernels_.norm(from + size_t(i) * hidden, weight, shape_.norm_epsilon, shape_.hidden, normed);
        for (int b = 0; b < blocks && weights_.head.type == WeightType::int8; ++b)
            kernels_.quantise(normed + b * kBlock, std::min(kBlock, shape_.hidden - b * kBlock),
                              &buffers_.quantised[size_t(i) * shape_.hidden + b * kBlock],
                              &buffers_.scales[size_t(i) * blocks + b]);
    }
}

// Rows of k channels, ready for the next linear; without `from`, gate and up projections that are multiplied first.
void Model::quantise_rows(const float* from, int stride, int k, int rows, int thread) {
    const int blocks = blocks_of(k);
    const Share mine(rows * blocks, thread, threads_->count());
    for (int unit = mine.begin; unit < mine.end; ++unit) {
        const int row = unit / blocks, first = unit % blocks * kBlock, count = std::min(kBlock, k - first);
        const float* values = from ? from + size_t(row) * stride + first : nullptr;
        if (!values) {
            float* gates = &buffers_.wide[size_t(row) * stride + first];
            kernels_.gate(gates, gates + k, count);
            values = gates;
        }
        if (weights_.head.type == WeightType::int8)
            kernels_.quantise(values, count, &buffers_.quantised[size_t(row) * k + first], &buffers_.scales[unit]);
    }
}

void Model::multiply(const Linear& linear, const float* from, int from_stride, int rows, float* out, int stride, bool add,
                     int thread) {
    Activations x;
    x.blocks = blocks_of(linear.k);
    x.stride = linear.quantised() ? linear.k : from_stride;
    x.quantised = buffers_.quantised.data();
    x.scales = buffers_.scales.data();
    x.values = from;
    const Share panels(linear.panels(), thread, threads_->count());
    kernels_.linear(linear, x, rows, out, stride, add, panels.begin, panels.end);
}

// Each row kept continues its sequence: its parent is the row kept before it, or the sequence's end.
void Model::check_accepted(const int64_t* accepted, int count) {
    std::unordered_map<int64_t, int64_t> last;
    for (int i = 0; i < count; ++i) {
        const int64_t row = accepted[i];
        if (row < 0 || row >= int64_t(states_.size())) throw std::invalid_argument("only rows of the last pass can be kept");
        const int64_t handle = handles_[row];
        const auto before = last.find(handle);
        const int64_t parent = before == last.end() ? -1 : before->second;
        const int64_t length = cache_.at(handle).length + states_[row].path_count - 1;
        if (parents_[row] != parent || states_[row].position != length)
            throw std::invalid_argument("accepted rows must continue their sequence");
        last[handle] = row;
    }
}

void Model::commit(const int64_t* accepted, int count) {
    check_accepted(accepted, count);
    // All pages first: when memory runs out, nothing has changed.
    for (int i = 0; i < count; ++i) cache_.reserve(cache_.at(handles_[accepted[i]]), states_[accepted[i]].position + 1);
    const CacheShape& shape = cache_.shape();
    for (int i = 0; i < count; ++i) {
        const int row = int(accepted[i]);
        Sequence& sequence = cache_.at(handles_[row]);
        Page& page = *sequence.pages[sequence.length / kPage];
        const size_t slot = size_t(sequence.length % kPage) * shape.head_dim;
        for (int layer = 0; layer < shape.layers; ++layer)
            for (int kind = 0; kind < 2; ++kind)
                for (int head = 0; head < shape.kv_heads; ++head) {
                    const float* from = drafted(layer, row, kind) + head * shape.head_dim;
                    const size_t to = page_offset(shape, layer, kind, head) + slot;
                    if (shape.half)
                        kernels_.narrow(from, shape.head_dim, page.halves() + to);
                    else
                        std::memcpy(page.floats() + to, from, shape.head_dim * sizeof(float));
                }
        ++sequence.length;
    }
}

int Model::place(int64_t row) const {
    if (row < 0 || row >= int64_t(places_.size()) || places_[row] < 0)
        throw std::out_of_range("asked for a row that was not wanted");
    return places_[row];
}

const float* Model::logits(int64_t row) const {
    const int at = place(row);
    if (logits_.empty()) throw std::out_of_range("this pass computed no logits");
    return &logits_[size_t(at) * logits_stride_];
}

const float* Model::hidden(int64_t row) const { return &hidden_[size_t(place(row)) * hidden_width_]; }

int64_t Model::argmax(int64_t row) const {
    const size_t first = size_t(place(row)) * threads_->count();
    if (logits_.empty()) throw std::out_of_range("this pass computed no logits");
    size_t best = first;
    for (size_t i = first; i < first + threads_->count(); ++i)
        if (best_values_[i] > best_values_[best]) best = i;
    return best_[best];
}

size_t Model::weight_bytes() const {
    size_t total = weights_.head.bytes();
    for (const Layer& layer : weights_.layers)
        total += layer.qkv.bytes() + layer.output.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    return total;
}

void Model::embed(int64_t token, float* out) const { unpack_row(weights_.embedding, int(token), out); }

}  // namespace medusa
