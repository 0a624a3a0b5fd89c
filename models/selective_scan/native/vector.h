// Vectors of floats and the transcendental functions of the scan, for any clang target.
//
// TILE channels are worked on together: one cache line of floats, that is two AVX2 vectors or one AVX-512
// vector. Polynomials were fitted in fp64; the relative error of each, evaluated in fp32, stands beside it.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define TILE 16
#define VECTORS (TILE / LANES)

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef float vf_any __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const float *from) { return *(const vf_any *)from; }
INLINE void store(float *to, vf value) { *(vf_any *)to = value; }
INLINE vf splat(float value) { return value - (vf){0}; }
INLINE vf select(vi condition, vf yes, vf no) { return (vf)((condition & (vi)yes) | (~condition & (vi)no)); }
INLINE vf larger(vf a, vf b) { return __builtin_elementwise_max(a, b); }
INLINE vf smaller(vf a, vf b) { return __builtin_elementwise_min(a, b); }
INLINE vf magnitude(vf a) { return __builtin_elementwise_abs(a); }

// `count` floats of a tile's vector, zeros beyond; the whole vector if count >= LANES.
INLINE vf load_some(const float *from, int count) {
  if (count >= LANES) return load(from);
  vf value = {0};
  if (count > 0) memcpy(&value, from, (size_t)count * 4);
  return value;
}
INLINE void store_some(float *to, vf value, int count) {
  if (count >= LANES) store(to, value);
  else if (count > 0) memcpy(to, &value, (size_t)count * 4);
}

// 2^x for x <= 127; relative error 2.4e-7. Below 2^-126 the result is 2^-126: to a decay that is nothing.
INLINE vf exp2_(vf x) {
  const vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  x = larger(x, splat(-126.0f));
  vf shifted = x + magic;
  vf f = x - (shifted - magic);
  vf p = splat(1.339086336e-03f);
  p = p * f + splat(9.676031918e-03f);
  p = p * f + splat(5.550357114e-02f);
  p = p * f + splat(2.402210749e-01f);
  p = p * f + splat(6.931471880e-01f);
  p = p * f + splat(1.0f);
  return (vf)((vi)p + ((vi)shifted << 23));
}

// log(1 + t) for t in [0, 1]; relative error 2.0e-7.
INLINE vf log1p_(vf t) {
  vf p = splat(5.126102123e-03f);
  p = p * t + splat(-2.907406461e-02f);
  p = p * t + splat(7.751608662e-02f);
  p = p * t + splat(-1.360224761e-01f);
  p = p * t + splat(1.907688073e-01f);
  p = p * t + splat(-2.483539899e-01f);
  p = p * t + splat(3.331812171e-01f);
  p = p * t + splat(-4.999944498e-01f);
  p = p * t + splat(1.0f);
  return p * t;
}

#define LOG2E 1.44269504088896341f

// softplus(v) = max(v, 0) + log(1 + e^-|v|): no overflow on either side, full precision for small steps.
INLINE vf softplus_(vf v) {
  return larger(v, splat(0.0f)) + log1p_(exp2_(magnitude(v) * splat(-LOG2E)));
}

INLINE vf sigmoid_(vf v) {
  vf t = exp2_(magnitude(v) * splat(-LOG2E));
  vf small = t / (splat(1.0f) + t);
  return select(v >= splat(0.0f), splat(1.0f) - small, small);
}

INLINE float sum_lanes(vf value) {
  float lanes[LANES] __attribute__((aligned(LANES * 4)));
  memcpy(lanes, &value, sizeof lanes);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}
