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

// The same in 5 bits a weight, where possible: each 32 input channels of an output channel take 16 evenly spaced values
// at most, as those of Q4_0, Q4_1 and Q4_K files do. False where they do not, and `packed` is then undefined. The weights
// are the int8 ones, but where no pair of a step and a start gives all 32 of them: there some are one off.
// Panels of 16 output channels; within a panel, for each 32 input channels: int16 steps, int16 starts (16 each), and four
// lines of 64 bytes. Line j has for each channel two int16, the bits 4t ... 4t + 3 of them being the codes of input
// channels 8j + 2t and 8j + 2t + 1. A weight is (code * step + start) >> 8, computed in 16 bits.
// `packed` has room for round_up(n, 16) * k * 5 / 8 bytes.
bool pack_int4(const float* weights, int n, int k, uint8_t* packed, float* scale, int threads);

// 16 channels' int8 weights of a group of 32 input channels, in the order of `pack_int8`.
void unpack_group(const uint8_t* group, int8_t* out);

// fp32: panels of 16 output channels, [k][channel].
void pack_fp32(const float* weights, int n, int k, float* packed, int threads);

// One output channel's weights, unpacked: `out` (k).
void unpack_row(const Linear& linear, int row, float* out);

}  // namespace medusa
