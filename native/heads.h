// Medusa heads beside the model: one call guesses for all sequences' last accepted rows.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "model.h"

namespace medusa {

struct HeadsWeights {
    int heads, hidden, draft;               // K, D, tokens a head can guess
    bool has_blocks = false, has_root = false;
    Linear first, root;                     // (K * D, D): the first block of all heads
    std::vector<std::vector<Linear>> rest;  // further blocks: [layer][head], (D, D)
    std::vector<Linear> projections;        // one, shared, or one per head: (draft, D)
    std::vector<int64_t> tokens;            // draft id -> token; empty where they are the same
    std::vector<float> inverse_temperatures;
};

class Heads {
public:
    // The model gives threads, kernels and embeddings, and outlives the heads.
    Heads(HeadsWeights weights, Model& model);

    // hidden (n, D), roots (n) -> the likeliest `top` tokens of each head and their log-probabilities, (n, K, top),
    // likeliest first, ties to the lowest token.
    void propose(const float* hidden, const int64_t* roots, int n, int top, int64_t* tokens, float* log_probabilities);

    const HeadsWeights& weights() const { return weights_; }

private:
    void quantise(const float* from, int stride, int rows, int thread);
    void multiply(const Linear& linear, const float* from, int stride, int first_row, int rows, float* out, int out_stride,
                  int thread);
    void run(int thread, const float* hidden, const int64_t* roots, int n);
    void choose(int row, int n, int top, int64_t* tokens, float* log_probabilities);

    HeadsWeights weights_;
    Model& model_;
    const int width_, stride_;  // of features and of logits, in whole panels
    WeightType type_;
    std::vector<float> features_, inner_, other_, roots_, logits_, scales_;
    std::vector<int16_t> quantised_;
};

}  // namespace medusa
