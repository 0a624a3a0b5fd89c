// The scan, four walks fused: step sizes, softplus, recurrence and merge, never writing a walk out.
//
// One task is one tile of channels of one image; its four walks follow one another and add to the same
// output, so no two threads touch the same value. Channels lie in the lanes, so a step of the recurrence is
// one multiply-add a vector.
#include "parallel.h"
#include "scan.h"

// `count` channels of the tile; a compile-time TILE in the common case.
INLINE void scan_tile(const struct scan_arguments *s, int64_t image, int64_t first, int count, int one_state,
                      float *scratch) {
  const int64_t length = s->height * s->width, columns = s->rank + 2 * s->states, d = s->channels;
  const int states = one_state ? 1 : (int)s->states;
  const float *u_of = s->features + image * length * d + first;
  const float *p_of = s->projected + image * length * 4 * columns;
  float *y_of = s->output + image * length * d + first;
  float *packed = scratch, *raw = packed + s->rank * TILE, *decay = raw + BLOCK * TILE;
  float *more_states = decay + BLOCK * TILE, *more_rates = more_states + states * TILE;
  const float *rows[BLOCK];
  int64_t pixels[BLOCK];

  vf skip[VECTORS] = {0};
  for (int walk = 0; walk < 4; walk++) {
    vf one[VECTORS];
    load_tile(s->skip + walk * d + first, count, one);
    for (int v = 0; v < VECTORS; v++) skip[v] += one[v];
  }

  for (int64_t walk = 0; walk < 4; walk++) {
    vf bias[VECTORS], state[VECTORS] = {0}, rate[VECTORS];
    load_tile(s->dt_bias + walk * d + first, count, bias);
    pack_weights(s, walk, first, count, packed);
    for (int n = 0; n < states; n++) {
      float rates[TILE] = {0};
      for (int c = 0; c < count; c++) rates[c] = -LOG2E * s->rates[(walk * d + first + c) * states + n];
      if (one_state) load_tile(rates, TILE, rate);
      else memcpy(more_rates + n * TILE, rates, sizeof rates);
    }
    if (!one_state) memset(more_states, 0, (size_t)states * TILE * 4);
    struct cursor cursor = cursor_at(s, walk, 0);

    for (int64_t start = 0; start < length; start += BLOCK) {
      const int steps = length - start < BLOCK ? (int)(length - start) : BLOCK;
      for (int t = 0; t < steps; t++, step_on(&cursor)) {
        pixels[t] = pixel(&cursor);
        rows[t] = p_of + (pixels[t] * 4 + walk) * columns;
      }
      raw_steps(rows, steps, s->rank, packed, bias, raw);
      softplus_all(raw, steps * TILE);
      if (one_state) decay_all(raw, steps, rate, decay);
      for (int t = 0; t < steps; t++) {
        const float *b = rows[t] + s->rank, *c = b + states;
        float *out = y_of + pixels[t] * d;
        vf u[VECTORS], y[VECTORS];
        load_tile(u_of + pixels[t] * d, count, u);
        if (walk) load_tile(out, count, y);
        else for (int v = 0; v < VECTORS; v++) y[v] = skip[v] * u[v];
        for (int v = 0; v < VECTORS; v++) {
          vf delta = load(raw + t * TILE + v * LANES), drive = delta * u[v];
          if (one_state) {
            state[v] = load(decay + t * TILE + v * LANES) * state[v] + drive * b[0];
            y[v] += state[v] * c[0];
          } else {
            for (int n = 0; n < states; n++) {
              float *h = more_states + n * TILE + v * LANES;
              vf next = exp2_(delta * load(more_rates + n * TILE + v * LANES)) * load(h) + drive * b[n];
              store(h, next);
              y[v] += next * c[n];
            }
          }
        }
        store_tile(out, count, y);
      }
    }
  }
}

static void forward_task(void *arguments, int64_t task, void *scratch) {
  const struct scan_arguments *s = arguments;
  const int64_t tiles = (s->channels + TILE - 1) / TILE;
  const int64_t image = task / tiles, first = task % tiles * TILE;
  const int64_t left = s->channels - first;
  if (left >= TILE && s->states == 1) scan_tile(s, image, first, TILE, 1, scratch);
  else if (left >= TILE) scan_tile(s, image, first, TILE, 0, scratch);
  else scan_tile(s, image, first, (int)left, 0, scratch);
}

int nightread_scan_forward(const float *features, const float *projected, const float *dt_weight,
                           const float *dt_bias, const float *rates, const float *skip, float *output,
                           int64_t batch, int64_t height, int64_t width, int64_t channels, int64_t rank,
                           int64_t states, int threads) {
  struct scan_arguments s = {features, projected, dt_weight, dt_bias,  rates, skip,  output,
                             batch,    height,    width,     channels, rank,  states};
  const int64_t tiles = (channels + TILE - 1) / TILE;
  const size_t scratch = (size_t)((rank + 2 * BLOCK + 2 * states) * TILE) * 4;
  return parallel_tasks(forward_task, &s, batch * tiles, threads, scratch);
}
