// Gradients of the four-walk scan.
//
// One task is one tile of channels of one image. For each walk it runs the recurrence forward, keeping step
// sizes, decays and states of the whole walk, and then back. With g_t = dL/dh_t:
//   g_t = C_t dL/dy_t + a_{t+1} g_{t+1},   dL/da_t = g_t h_{t-1},   a_t = exp(delta_t A),   A = -rate
// The gradient of the raw step size is put out for each walk (B,H,W,4,D); what is left of it are matrix
// products. Gradients of B and C are sums over channels, put out for each tile and added up by the caller.
#include "parallel.h"
#include "scan.h"

// `count` channels and `states` states, compile-time constants in the common case.
INLINE void keep_walk(const struct scan_arguments *s, int64_t image, int64_t walk, int64_t first, int count,
                      int states, const float *rates, float *packed, float *delta, float *slope, float *decay,
                      float *state) {
  const int64_t length = s->height * s->width, columns = s->rank + 2 * s->states, d = s->channels;
  const float *u_of = s->features + image * length * d + first;
  const float *p_of = s->projected + image * length * 4 * columns;
  const float *rows[BLOCK];
  vf bias[VECTORS];
  load_tile(s->dt_bias + walk * d + first, count, bias);
  pack_weights(s, walk, first, count, packed);
  struct cursor cursor = cursor_at(s, walk, 0);
  for (int64_t start = 0; start < length; start += BLOCK) {
    const int steps = length - start < BLOCK ? (int)(length - start) : BLOCK;
    float *step_sizes = delta + start * TILE;
    struct cursor ahead = cursor;
    for (int t = 0; t < steps; t++, step_on(&ahead)) rows[t] = p_of + (pixel(&ahead) * 4 + walk) * columns;
    raw_steps(rows, steps, s->rank, packed, bias, step_sizes);
    for (int i = 0; i < steps * TILE; i += LANES) store(slope + start * TILE + i, sigmoid_(load(step_sizes + i)));
    softplus_all(step_sizes, steps * TILE);
    for (int t = 0; t < steps; t++, step_on(&cursor)) {
      const float *b = rows[t] + s->rank;
      vf u[VECTORS];
      load_tile(u_of + pixel(&cursor) * d, count, u);
      for (int n = 0; n < states; n++) {
        for (int v = 0; v < VECTORS; v++) {
          int64_t at = ((start + t) * states + n) * TILE + v * LANES;
          vf before = start + t ? load(state + at - states * TILE) : splat(0.0f);
          vf size = load(step_sizes + t * TILE + v * LANES), a = exp2_(size * load(rates + n * TILE + v * LANES) * splat(LOG2E));
          store(decay + at, a);
          store(state + at, a * before + size * u[v] * b[n]);
        }
      }
    }
  }
}

INLINE void gradient_tile(const struct scan_arguments *s, int64_t image, int64_t tile, int count, int states,
                          float *scratch) {
  const int64_t length = s->height * s->width, columns = s->rank + 2 * s->states, d = s->channels;
  const int64_t first = tile * TILE;
  const float *u_of = s->features + image * length * d + first;
  const float *gy_of = s->grad_output + image * length * d + first;
  const float *p_of = s->projected + image * length * 4 * columns;
  float *gu_of = s->grad_features + image * length * d + first;
  float *packed = scratch, *delta = packed + s->rank * TILE, *slope = delta + length * TILE;
  float *decay = slope + length * TILE, *state = decay + length * states * TILE;
  float *grad_state = state + length * states * TILE, *grad_rate = grad_state + states * TILE;
  float *rates = grad_rate + states * TILE;

  vf skip[VECTORS] = {0};
  for (int walk = 0; walk < 4; walk++) {
    vf one[VECTORS];
    load_tile(s->skip + walk * d + first, count, one);
    for (int v = 0; v < VECTORS; v++) skip[v] += one[v];
  }
  for (int64_t walk = 0; walk < 4; walk++) {
    memset(grad_state, 0, (size_t)states * TILE * 4 * 3);
    for (int n = 0; n < states; n++)
      for (int i = 0; i < count; i++) rates[n * TILE + i] = -s->rates[(walk * d + first + i) * states + n];
    keep_walk(s, image, walk, first, count, states, rates, packed, delta, slope, decay, state);
    // Walking the opposite way: walk 0 backwards visits the pixels as walk 2 does.
    struct cursor cursor = cursor_at(s, walk ^ 2, 0);
    for (int64_t t = length - 1; t >= 0; t--, step_on(&cursor)) {
      const int64_t at_pixel = pixel(&cursor);
      const float *b = p_of + (at_pixel * 4 + walk) * columns + s->rank, *c = b + states;
      float *gbc = s->grad_bc + ((tile * s->batch + image) * length + at_pixel) * 8 * states + walk * 2 * states;
      float *gu_at = gu_of + at_pixel * d;
      vf u[VECTORS], gy[VECTORS], gu[VECTORS], gdelta[VECTORS] = {0};
      load_tile(u_of + at_pixel * d, count, u);
      load_tile(gy_of + at_pixel * d, count, gy);
      if (walk) load_tile(gu_at, count, gu);
      else for (int v = 0; v < VECTORS; v++) gu[v] = skip[v] * gy[v];
      for (int n = 0; n < states; n++) {
        vf sum_b = {0}, sum_c = {0};
        for (int v = 0; v < VECTORS; v++) {
          const int64_t at = (t * states + n) * TILE + v * LANES;
          float *carried = grad_state + n * TILE + v * LANES, *g_rate = grad_rate + n * TILE + v * LANES;
          vf a = load(decay + at), size = load(delta + t * TILE + v * LANES);
          vf before = t ? load(state + at - states * TILE) : splat(0.0f);
          vf g = load(carried) + gy[v] * c[n];
          vf through = g * before * a, rate = load(rates + n * TILE + v * LANES);
          sum_c += gy[v] * load(state + at);
          sum_b += g * size * u[v];
          gu[v] += g * size * b[n];
          gdelta[v] += through * rate + g * u[v] * b[n];
          // A = -exp(a_log), so dL/da_log = A dL/dA, and dL/dA gathers g h a delta.
          store(g_rate, load(g_rate) + through * size * rate);
          store(carried, a * g);
        }
        gbc[n] = sum_lanes(sum_b);
        gbc[states + n] = sum_lanes(sum_c);
      }
      for (int v = 0; v < VECTORS; v++) gdelta[v] *= load(slope + t * TILE + v * LANES);
      store_tile(gu_at, count, gu);
      store_tile(s->grad_step + ((image * length + at_pixel) * 4 + walk) * d + first, count, gdelta);
    }
    for (int n = 0; n < states; n++)
      for (int i = 0; i < count; i++)
        s->grad_a_log[((image * 4 + walk) * d + first + i) * states + n] = grad_rate[n * TILE + i];
  }
}

static void backward_task(void *arguments, int64_t task, void *scratch) {
  const struct scan_arguments *s = arguments;
  const int64_t tiles = (s->channels + TILE - 1) / TILE;
  const int64_t image = task / tiles, tile = task % tiles, left = s->channels - tile * TILE;
  const int states = (int)s->states;
  if (left >= TILE && states == 1) gradient_tile(s, image, tile, TILE, 1, scratch);
  else if (left >= TILE) gradient_tile(s, image, tile, TILE, states, scratch);
  else gradient_tile(s, image, tile, (int)left, states, scratch);
}

// Beside the shapes of scan.h: grad_step (B,H,W,4,D), grad_bc (tiles,B,H,W,4,2N), grad_a_log (B,4,D,N).
int nightread_scan_backward(const float *features, const float *projected, const float *dt_weight,
                            const float *dt_bias, const float *rates, const float *skip, const float *grad_output,
                            float *grad_features, float *grad_step, float *grad_bc, float *grad_a_log,
                            int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t rank,
                            int64_t states, int threads) {
  struct scan_arguments s = {features, projected, dt_weight,   dt_bias,       rates,     skip,    0,         batch,
                             height,   width,     channels,    rank,          states,    grad_output,
                             grad_features, grad_step, grad_bc, grad_a_log};
  const int64_t tiles = (channels + TILE - 1) / TILE, length = height * width;
  const size_t scratch = (size_t)((rank + 2 * length + 2 * length * states + 3 * states) * TILE) * 4;
  return parallel_tasks(backward_task, &s, batch * tiles, threads, scratch);
}
