// What the forward and the backward scan share: the arguments, the walks, the tile of step sizes.
//
// Shapes: B images, H x W pixels, L = H W steps, 4 walks, D channels, R rank, N states. All arrays are fp32
// and contiguous: features, output (B,H,W,D); projected (B,H,W,4,R+2N); dt_weight (4,D,R); dt_bias, skip
// (4,D); rates (4,D,N) = exp(a_log).
#pragma once
#include "vector.h"

#define BLOCK 64  // steps whose step sizes are computed together, so that they stay in the first cache

struct scan_arguments {
  const float *features, *projected, *dt_weight, *dt_bias, *rates, *skip;
  float *output;
  int64_t batch, height, width, channels, rank, states;
  // Backward only.
  const float *grad_output;
  float *grad_features, *grad_step, *grad_bc, *grad_a_log;
};

struct cursor {
  int64_t row, column, height, width, walk;
};

// The pixel of step t. Walks 0 and 2 go along rows, 1 and 3 along columns; 2 and 3 from the end.
INLINE struct cursor cursor_at(const struct scan_arguments *s, int64_t walk, int64_t t) {
  int64_t length = s->height * s->width, forward = walk < 2 ? t : length - 1 - t;
  struct cursor c = {0, 0, s->height, s->width, walk};
  if (walk & 1) c.column = forward / s->height, c.row = forward % s->height;
  else c.row = forward / s->width, c.column = forward % s->width;
  return c;
}
INLINE int64_t pixel(const struct cursor *c) { return c->row * c->width + c->column; }
INLINE void step_on(struct cursor *c) {
  switch (c->walk) {
    case 0: if (++c->column == c->width) c->column = 0, c->row++; break;
    case 1: if (++c->row == c->height) c->row = 0, c->column++; break;
    case 2: if (--c->column < 0) c->column = c->width - 1, c->row--; break;
    default: if (--c->row < 0) c->row = c->height - 1, c->column--; break;
  }
}

// Weights of one tile and walk, rank by rank: packed[r][TILE], zero beyond the last channel.
INLINE void pack_weights(const struct scan_arguments *s, int64_t walk, int64_t first, int count, float *packed) {
  const float *from = s->dt_weight + (walk * s->channels + first) * s->rank;
  memset(packed, 0, (size_t)s->rank * TILE * 4);
  for (int c = 0; c < count; c++)
    for (int64_t r = 0; r < s->rank; r++) packed[r * TILE + c] = from[c * s->rank + r];
}

INLINE void load_tile(const float *from, int count, vf tile[VECTORS]) {
  for (int v = 0; v < VECTORS; v++) tile[v] = load_some(from + v * LANES, count - v * LANES);
}
INLINE void store_tile(float *to, int count, const vf tile[VECTORS]) {
  for (int v = 0; v < VECTORS; v++) store_some(to + v * LANES, tile[v], count - v * LANES);
}

// raw[t][TILE] = bias + W p_t for `steps` steps, four at a time so that a weight is loaded once for four.
INLINE void raw_steps(const float *const *rows, int steps, int64_t rank, const float *packed, const vf bias[VECTORS],
                      float *raw) {
  int t = 0;
  for (; t + 4 <= steps; t += 4) {
    vf sum[4][VECTORS];
    for (int i = 0; i < 4; i++)
      for (int v = 0; v < VECTORS; v++) sum[i][v] = bias[v];
    for (int64_t r = 0; r < rank; r++)
      for (int v = 0; v < VECTORS; v++) {
        vf weight = load(packed + r * TILE + v * LANES);
        for (int i = 0; i < 4; i++) sum[i][v] += weight * rows[t + i][r];
      }
    for (int i = 0; i < 4; i++)
      for (int v = 0; v < VECTORS; v++) store(raw + (t + i) * TILE + v * LANES, sum[i][v]);
  }
  for (; t < steps; t++)
    for (int v = 0; v < VECTORS; v++) {
      vf sum = bias[v];
      for (int64_t r = 0; r < rank; r++) sum += load(packed + r * TILE + v * LANES) * rows[t][r];
      store(raw + t * TILE + v * LANES, sum);
    }
}

// In place, values <- softplus(values). Two passes, so that each keeps its polynomial in registers.
INLINE void softplus_all(float *restrict values, int count) {
  float small[BLOCK * TILE] __attribute__((aligned(64)));
#pragma clang loop unroll_count(4)
  for (int i = 0; i < count; i += LANES) store(small + i, exp2_(magnitude(load(values + i)) * splat(-LOG2E)));
#pragma clang loop unroll_count(4)
  for (int i = 0; i < count; i += LANES)
    store(values + i, larger(load(values + i), splat(0.0f)) + log1p_(load(small + i)));
}

// decay[t] = 2^(delta[t] rate): with rate = -exp(a_log) / log 2 this is exp(delta A).
INLINE void decay_all(const float *restrict delta, int steps, const vf rate[VECTORS], float *restrict decay) {
#pragma clang loop unroll_count(2)
  for (int t = 0; t < steps; t++)
    for (int v = 0; v < VECTORS; v++)
      store(decay + t * TILE + v * LANES, exp2_(load(delta + t * TILE + v * LANES) * rate[v]));
}
