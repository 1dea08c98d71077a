// What elsa::hadamard_attention computes, for kernels of every device.
//
//   attn = softmax_K²( Conv1x1( GELU( GroupConv_KxK( pool_s( scale · query ⊙ key )))))
//
// Includes neither torch nor CUDA.
#pragma once

#include "../../core/neighbourhood.h"
#include "../../core/views.h"

namespace elsa::hadamard_attention {

struct Shape {
  int64_t batch, channels, height, width;  // of query and key
  int64_t heads;
  Neighbourhood neighbourhood;           // of the convolution on the pooled map, the same along both axes
  int64_t pooling, groups, proj_groups;  // pooling: the side of a pooled square; it is the op's option `stride`

  int64_t taps() const { return neighbourhood.kernel_size * neighbourhood.kernel_size; }
  int64_t group_width() const { return channels / groups; }
  int64_t attn_channels() const { return heads * taps(); }
  int64_t out_height() const { return height / pooling; }
  int64_t out_width() const { return width / pooling; }

  // The projection's inputs and outputs of each of its groups.
  int64_t terms() const { return channels / proj_groups; }
  int64_t outputs() const { return attn_channels() / proj_groups; }
};

}  // namespace elsa::hadamard_attention
