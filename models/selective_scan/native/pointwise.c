// What stands between the matrix products of a VMamba block in inference, each in one pass over memory:
// residual and layer norm, bias and GELU, depth-wise convolution and SiLU. Arrays are fp32, channels last.
#include "parallel.h"
#include "vector.h"

#include <math.h>

#define ROWS 32  // rows a task: large enough to outweigh the hand-over, small enough to share evenly

struct rows_arguments {
  float *residual, *values;
  const float *branch, *bias, *scale, *shift;
  int64_t rows, width;
  float epsilon;
};

// The vector that starts at element i of a row, zeros beyond its end.
INLINE vf at(const float *row, int64_t i, int64_t width) {
  return load_some(row + i, (int)(width - i < LANES ? width - i : LANES));
}
INLINE void put(float *row, int64_t i, int64_t width, vf value) {
  store_some(row + i, value, (int)(width - i < LANES ? width - i : LANES));
}

// One row; `whole` is a compile-time promise that the width is a multiple of a tile.
INLINE void add_norm_row(const struct rows_arguments *s, int64_t row, int whole) {
  const int64_t width = s->width, step = whole ? TILE : LANES;
  float *residual = s->residual + row * width, *out = s->values ? s->values + row * width : 0;
  const float *branch = s->branch ? s->branch + row * width : 0;
  vf sums[VECTORS] = {0}, squares[VECTORS] = {0};
  for (int64_t i = 0; i < width; i += step)
    for (int v = 0; v < (whole ? VECTORS : 1); v++) {
      const int64_t j = i + v * LANES, end = whole ? j + LANES : width;
      vf value = at(residual, j, end);
      if (branch) {
        value += at(branch, j, end);
        if (s->bias) value += at(s->bias, j, end);
        put(residual, j, end, value);
      }
      sums[v] += value;
    }
  if (!out) return;
  for (int v = 1; v < VECTORS; v++) sums[0] += sums[v];
  const float mean = sum_lanes(sums[0]) / (float)width;
  for (int64_t i = 0; i < width; i += step)
    for (int v = 0; v < (whole ? VECTORS : 1); v++) {
      const int64_t j = i + v * LANES, end = whole ? j + LANES : width;
      vf away = at(residual, j, end) - mean;
      if (!whole)  // lanes beyond the row hold -mean: leave them out
        for (int64_t lane = width - j; lane < LANES; lane++) away[lane] = 0.0f;
      squares[v] += away * away;
    }
  for (int v = 1; v < VECTORS; v++) squares[0] += squares[v];
  const float inverse = 1.0f / sqrtf(sum_lanes(squares[0]) / (float)width + s->epsilon);
#pragma clang loop unroll_count(2)
  for (int64_t i = 0; i < width; i += LANES) {
    const int64_t end = whole ? i + LANES : width;
    put(out, i, end, (at(residual, i, end) - mean) * inverse * at(s->scale, i, end) + at(s->shift, i, end));
  }
}

static void add_norm_task(void *arguments, int64_t task, void *scratch) {
  const struct rows_arguments *s = arguments;
  const int64_t from = task * ROWS, to = from + ROWS < s->rows ? from + ROWS : s->rows;
  (void)scratch;
  for (int64_t row = from; row < to; row++)
    if (s->width % TILE == 0) add_norm_row(s, row, 1);
    else add_norm_row(s, row, 0);
}

// residual += branch (+ bias); values = layer norm of residual. branch, bias and values may be absent;
// values may be the residual itself. Arrays (rows, width).
int nightread_add_norm(float *residual, const float *branch, const float *bias, const float *scale,
                       const float *shift, float *values, int64_t rows, int64_t width, float epsilon, int threads) {
  struct rows_arguments s = {residual, values, branch, bias, scale, shift, rows, width, epsilon};
  return parallel_tasks(add_norm_task, &s, (rows + ROWS - 1) / ROWS, threads, 0);
}

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), with log2 Phi(-a) as a polynomial on [0, 6]: absolute error 8.3e-8
// everywhere (beyond 6 the second term is below 4e-8).
INLINE vf gelu_(vf x) {
  vf a = smaller(magnitude(x), splat(6.0f));
  vf p = splat(3.310888959e-05f);
  p = p * a + splat(-7.693608668e-04f);
  p = p * a + splat(8.081181554e-03f);
  p = p * a + splat(-5.341282572e-02f);
  p = p * a + splat(-4.587704322e-01f);
  p = p * a + splat(-1.151201880e+00f);
  p = p * a + splat(-9.999930422e-01f);
  return larger(x, splat(0.0f)) - a * exp2_(p);
}

static void gelu_task(void *arguments, int64_t task, void *scratch) {
  const struct rows_arguments *s = arguments;
  const int64_t from = task * ROWS, to = from + ROWS < s->rows ? from + ROWS : s->rows;
  (void)scratch;
  for (int64_t row = from; row < to; row++) {
    float *values = s->values + row * s->width;
    int64_t i = 0;
#pragma clang loop unroll_count(2)
    for (; i + LANES <= s->width; i += LANES) store(values + i, gelu_(load(values + i) + load(s->bias + i)));
    if (i < s->width) put(values, i, s->width, gelu_(at(values, i, s->width) + at(s->bias, i, s->width)));
  }
}

// values = gelu(values + bias), exact GELU, in place. (rows, width).
int nightread_bias_gelu(float *values, const float *bias, int64_t rows, int64_t width, int threads) {
  struct rows_arguments s = {.values = values, .bias = bias, .rows = rows, .width = width};
  return parallel_tasks(gelu_task, &s, (rows + ROWS - 1) / ROWS, threads, 0);
}

struct convolution_arguments {
  const float *input, *weight, *bias;
  float *output;
  int64_t batch, height, width, channels;
};

INLINE vf silu_(vf x) { return x / (splat(1.0f) + exp2_(smaller(x * splat(-LOG2E), splat(126.0f)))); }

// One row of the output image. Weights lie tap by tap, (9, D), so that a tap is one load a vector. A line
// above or below the map is replaced by the middle one under taps of zero, so only columns are checked.
INLINE void convolve_row(const struct convolution_arguments *s, int64_t image, int64_t row, int64_t i, int count) {
  const int64_t d = s->channels, last = s->width - 1;
  const float *middle = s->input + (image * s->height + row) * s->width * d + i, *lines[3] = {middle, middle, middle};
  float *out = s->output + (image * s->height + row) * s->width * d + i;
  vf taps[9], bias = s->bias ? load_some(s->bias + i, count) : splat(0.0f);
  for (int k = 0; k < 9; k++) taps[k] = load_some(s->weight + k * d + i, count);
  for (int dy = 0; dy < 3; dy += 2) {
    if (row + dy - 1 >= 0 && row + dy - 1 < s->height) lines[dy] = middle + (dy - 1) * s->width * d;
    else taps[dy * 3] = taps[dy * 3 + 1] = taps[dy * 3 + 2] = splat(0.0f);
  }
  for (int64_t column = 0; column <= last; column++) {
    vf sum = bias;
    if (column > 0 && column < last) {
      for (int dy = 0; dy < 3; dy++)
        for (int dx = 0; dx < 3; dx++)
          sum += taps[dy * 3 + dx] * load_some(lines[dy] + (column + dx - 1) * d, count);
    } else {
      for (int dy = 0; dy < 3; dy++)
        for (int dx = 0; dx < 3; dx++)
          if (column + dx - 1 >= 0 && column + dx - 1 <= last)
            sum += taps[dy * 3 + dx] * load_some(lines[dy] + (column + dx - 1) * d, count);
    }
    store_some(out + column * d, silu_(sum), count);
  }
}

static void convolution_task(void *arguments, int64_t task, void *scratch) {
  const struct convolution_arguments *s = arguments;
  int64_t i = 0;
  (void)scratch;
  for (; i + LANES <= s->channels; i += LANES) convolve_row(s, task / s->height, task % s->height, i, LANES);
  if (i < s->channels) convolve_row(s, task / s->height, task % s->height, i, (int)(s->channels - i));
}

// output = silu(3 x 3 depth-wise convolution, padding 1, + bias); input, output (B,H,W,D), weight (9,D).
int nightread_depthwise_silu(const float *input, const float *weight, const float *bias, float *output,
                             int64_t batch, int64_t height, int64_t width, int64_t channels, int threads) {
  struct convolution_arguments s = {input, weight, bias, output, batch, height, width, channels};
  return parallel_tasks(convolution_task, &s, batch * height, threads, 0);
}
