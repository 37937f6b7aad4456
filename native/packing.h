// Weights (n, k) in the order in which the kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace medusa {

// int8: panels of 16 output channels; within a panel pairs of input channels, 16 pairs of bytes each:
// [channel 0: k, k+1][channel 1: k, k+1]...; one scale per output channel, largest |weight| / 127.
// `packed` has round_up(n, 16) * k elements, `scale` round_up(n, 16).
void pack_int8(const float* weights, int n, int k, int8_t* packed, float* scale, int threads);

// fp32: panels of 16 output channels, [k][channel].
void pack_fp32(const float* weights, int n, int k, float* packed, int threads);

// One output channel's weights, unpacked: `out` (k).
void unpack_row(const Linear& linear, int row, float* out);

}  // namespace medusa
