// A decoder of the Llama family: one forward pass over rows of any number of sequences.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "buffer.h"
#include "cache.h"
#include "kernels.h"
#include "threads.h"

namespace medusa {

struct Shape {
    int layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary;
    int64_t context;
    int64_t window;  // positions that a position sees, itself included; 0: all
    float norm_epsilon, rope_amplitude;
    std::vector<float> inverse_frequencies;  // (head_dim / 2)
};

struct Layer {
    Linear qkv, output, gate_up, down;
    const float *attention_norm, *mlp_norm;
    const float *query_norm = nullptr, *key_norm = nullptr;  // Qwen3's, per head
};

struct Weights {
    std::vector<Layer> layers;
    const float* norm;
    Linear head;
    Linear embedding;  // the head again where they are tied
};

// The rows of one call: see `Rows` in decoding/protocols.py.
struct Rows {
    int count;
    const int64_t *sequences, *tokens, *positions, *parents;
    const bool* wanted;
};

// What rows become on their way through a layer, and what the linears take.
class Buffers {
public:
    void resize(int rows, int width, int most_inputs, WeightType type);
    Activations activations(int k) const;
    Buffer<float> x, normed, wide, attended;
    Buffer<int16_t> quantised;
    Buffer<float> scales;

private:
    WeightType type_ = WeightType::int8;
};

// Queries [first, first + count) of a pass, in the order of `Model::plan_attention`, that share a head of keys and see
// the same ones first: those committed, and the first `shared` rows of their paths.
struct Together {
    int first, count, shared;
};

// What a thread needs for its share of the attention.
struct AttentionWork {
    void clear();
    void add(const float* key, const float* value, int count, int stride);
    // Of the queries, keys and values that were added; scores have room for so many positions.
    Attention prepare(int head_dim, int skip, int positions);

    std::vector<Together> plan;
    std::vector<Query> queries;
    std::vector<Run> keys, values;
    std::vector<int> starts;  // of each query's own runs
    std::vector<float> scores, packed, factors, widened;
};

class Model {
public:
    // half_cache: keys and values are kept as fp16.
    Model(Shape shape, Weights weights, const Kernels& kernels, std::shared_ptr<Threads> threads, bool half_cache = false);

    // Throws std::invalid_argument for rows that make no sense and std::bad_alloc; both leave the sequences as they
    // were. Without `logits` only hidden states are computed.
    void forward(const Rows& rows, bool logits);
    // Keeps rows of the last forward pass; each sequence's form a path that begins at its end.
    void commit(const int64_t* accepted, int count);

    int place(int64_t row) const;  // index among the wanted rows; throws std::out_of_range
    const float* logits(int64_t row) const;
    const float* hidden(int64_t row) const;
    int64_t argmax(int64_t row) const;
    void embed(int64_t token, float* out) const;

    const Shape& shape() const { return shape_; }
    const Kernels& kernels() const { return kernels_; }
    Cache& cache() { return cache_; }
    Threads& threads() { return *threads_; }
    size_t weight_bytes() const;
    // One pass over the bytes of all weights and nothing else, as fast as this machine reads them; seconds.
    double read_weights();

private:
    struct RowState {
        int64_t position;
        const Sequence* sequence;
        int64_t committed;
        int path_begin, path_count;  // in paths_: the rows of this call from the sequence's end to the row itself
    };

    double time_reading(bool fetch);
    void check(const Rows& rows);
    void check_accepted(const int64_t* accepted, int count);
    void prepare(const Rows& rows);
    void run_layers(int thread);
    void project(int thread, bool logits);
    void norm_rows(const float* weight, const float* from, int rows, int thread);
    void quantise_rows(const float* from, int stride, int k, int rows, int thread);
    void rotate_and_keep(const Layer& layer, int index, int thread, std::vector<uint16_t>& halves);
    void plan_attention(int thread, AttentionWork& work) const;
    int64_t first_seen(int row) const;
    int shared_path(int row, int other) const;
    void attend(int layer, AttentionWork& work);
    void attend_together(int layer, const Together& together, AttentionWork& work);
    void add_committed(int layer, int kv, int row, AttentionWork& work) const;
    void add_drafted(int layer, int kv, int row, int from, int to, AttentionWork& work) const;
    void multiply(const Linear& linear, const float* from, int from_stride, int rows, float* out, int stride, bool add,
                  int thread);
    float* drafted(int layer, int row, int kind) { return const_cast<float*>(std::as_const(*this).drafted(layer, row, kind)); }
    const float* drafted(int layer, int row, int kind) const {
        return drafted_.data() + ((size_t(layer) * states_.size() + row) * 2 + kind) * kv_width_;
    }

    const Shape shape_;
    const Weights weights_;
    const Kernels& kernels_;
    std::shared_ptr<Threads> threads_;
    Cache cache_;
    const int qkv_width_, kv_width_, hidden_width_, wide_width_;  // the last two in whole panels

    // The last forward pass.
    std::vector<RowState> states_;
    std::vector<int64_t> handles_, tokens_;
    std::vector<int> parents_, paths_, wanted_, places_;
    Buffer<float> drafted_;  // (layer, row, key or value, channels)
    Buffer<float> cosines_, sines_;
    Buffers buffers_;
    Buffer<float> hidden_, logits_;
    int logits_stride_;
    Buffer<float> best_values_;
    Buffer<int> best_;  // (wanted, threads)
};

}  // namespace medusa
