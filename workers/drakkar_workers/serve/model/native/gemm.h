// out[t, n] (+)= sum over k of x[t, k] * w[n, k], for few or many t.
//
// Weights lie in panels of 32 outputs: [n / 32][k / pair][32][pair], so that a panel is read from
// end to end and no lane has to be summed across. Each sum runs over k in one fixed order whatever
// the number of rows: a row's result does not depend on its neighbours, to the last bit.
#pragma once
#include <algorithm>
#include "vector.h"

constexpr int PANEL = 2 * LANES;
constexpr int ROWS = 6;             // of a tile: 6 x 4 sums stay in registers
constexpr int QUANTUM_PAIRS = 32;   // k pairs that share a scale, and are unpacked at once

enum Kind { F32 = 0, BF16 = 1, INT8 = 2, INT4 = 3 };

struct Gemm {
  int kind, rows, inner, outputs, accumulate;
  const void* x;
  const void* weights;
  const float* scales;  // int8, int4: [n / 32][k / 64][32]
  const float* bias;    // or null
  float* out;
};

static inline void put(float* out, vfloat v, int valid, bool add) {
  if (valid >= LANES) {
    store(out, add ? load(out) + v : v);
    return;
  }
  float lanes[LANES];
  store(lanes, v);
  for (int i = 0; i < valid; i++) out[i] = add ? out[i] + lanes[i] : lanes[i];
}

// M rows by P panels over `pairs` steps of k; scales, if any, are those of the panels.
template <class T, int M, int P>
static inline void tile(const T* x, int stride, const T* w, size_t panel, int pairs, float* out,
                        int outputs, int valid, const float* scales, size_t scales_step, bool add) {
  vfloat acc[M][2 * P] = {};
  for (int k = 0; k < pairs; k++) {
    typename Pair<T>::vec b[2 * P];
#pragma GCC unroll 2
    for (int p = 0; p < P; p++) {
      const T* at = w + p * panel + size_t(k) * PANEL * Pair<T>::n;
      b[2 * p] = load_pairs(at);
      b[2 * p + 1] = load_pairs(at + LANES * Pair<T>::n);
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; m++) {
      auto a = load_one(x + size_t(m) * stride + k * Pair<T>::n);
#pragma GCC unroll 4
      for (int j = 0; j < 2 * P; j++) acc[m][j] = dot(acc[m][j], b[j], a);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
    for (int j = 0; j < 2 * P; j++) {
      vfloat v = acc[m][j];
      if (scales) v *= load(scales + (j / 2) * scales_step + (j % 2) * LANES);
      if (valid > j * LANES) put(out + size_t(m) * outputs + j * LANES, v, valid - j * LANES, add);
    }
  }
}

template <class T, int P>
static void rows_of(const T* x, int rows, int stride, const T* w, size_t panel, int pairs,
                    float* out, int outputs, int valid, const float* scales, size_t step, bool add) {
  int t = 0;
#define TILE(M) tile<T, M, P>(x + size_t(t) * stride, stride, w, panel, pairs, \
                              out + size_t(t) * outputs, outputs, valid, scales, step, add)
  for (; t + ROWS <= rows; t += ROWS) TILE(ROWS);
  switch (rows - t) {
    case 5: TILE(5); break;
    case 4: TILE(4); break;
    case 3: TILE(3); break;
    case 2: TILE(2); break;
    case 1: TILE(1); break;
  }
#undef TILE
}

// Whole numbers up to 8 bits are exact in bf16: their floats end in 16 zero bits.
static inline vbits join(vint low, vint high) {
  return ((vbits)__builtin_convertvector(low, vfloat) >> 16) |
         (vbits)__builtin_convertvector(high, vfloat);
}
static inline void unpack(const int8_t* from, uint32_t* to, int pairs) {
  for (int i = 0; i < pairs * 2; i++) {  // 16 outputs: first values of their pairs, then second
    vbits v = join(extend(from + i * 32), extend(from + i * 32 + 16));
    memcpy(to + i * LANES, &v, sizeof v);
  }
}
static inline void unpack(const uint8_t* from, uint32_t* to, int pairs) {
  for (int i = 0; i < pairs * 2; i++) {  // a byte holds a pair, the first value in its lower half
    vint both = extend(from + i * 16);
    vbits v = join((both & 15) - 8, (both >> 4) - 8);
    memcpy(to + i * LANES, &v, sizeof v);
  }
}

template <class T, int P>
static void dense(const Gemm& g, int n) {
  const size_t panel = size_t(g.inner) * PANEL;
  const T* w = (const T*)g.weights + (n / PANEL) * panel;
  // Long sums are cut so that a panel's piece stays in the second-level cache.
  const int longest = 2048 / Pair<T>::n, all = g.inner / Pair<T>::n;
  for (int k = 0; k < all; k += longest)
    rows_of<T, P>((const T*)g.x + size_t(k) * Pair<T>::n, g.rows, g.inner,
                  w + size_t(k) * PANEL * Pair<T>::n, panel, std::min(longest, all - k), g.out + n,
                  g.outputs, g.outputs - n, nullptr, 0, g.accumulate || k);
}

template <class Q, int P>
static void quantised(const Gemm& g, int n) {
  alignas(64) uint32_t scratch[P * QUANTUM_PAIRS * PANEL];
  const int all = g.inner / 2, groups = (all + QUANTUM_PAIRS - 1) / QUANTUM_PAIRS;
  const size_t bytes = PANEL * (std::is_signed<Q>::value ? 2 : 1);  // of one k pair
  const size_t panel = QUANTUM_PAIRS * PANEL * 2;                    // of the scratch, in bf16
  for (int group = 0; group < groups; group++) {
    const int k = group * QUANTUM_PAIRS, pairs = std::min(QUANTUM_PAIRS, all - k);
    for (int p = 0; p < P; p++)
      unpack((const Q*)g.weights + (size_t(n / PANEL + p) * all + k) * bytes,
             scratch + p * QUANTUM_PAIRS * PANEL, pairs);
    rows_of<bf16, P>((const bf16*)g.x + size_t(k) * 2, g.rows, g.inner, (const bf16*)scratch, panel,
                     pairs, g.out + n, g.outputs, g.outputs - n,
                     g.scales + (size_t(n / PANEL) * groups + group) * PANEL,
                     size_t(groups) * PANEL, g.accumulate || group);
  }
}

template <int P>
static void panels(const Gemm& g, int n) {
  switch (g.kind) {
    case F32: dense<float, P>(g, n); break;
    case BF16: dense<bf16, P>(g, n); break;
    case INT8: quantised<int8_t, P>(g, n); break;
    case INT4: quantised<uint8_t, P>(g, n); break;
  }
  if (g.bias)
    for (int t = 0; t < g.rows; t++)
      for (int i = n; i < std::min(n + P * PANEL, g.outputs); i++)
        g.out[size_t(t) * g.outputs + i] += g.bias[i];
}

static void gemm(const Gemm& g, int threads) {
  const int count = (g.outputs + PANEL - 1) / PANEL;
  // Shares that are handed out as threads come: one that the machine holds up delays less.
  const int share = std::max(2, count / (threads * 6) / 2 * 2);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1)
  for (int first = 0; first < count; first += share) {
    const int last = std::min(first + share, count);
    int p = first;
    for (; p + 2 <= last; p += 2) panels<2>(g, p * PANEL);
    if (p < last) panels<1>(g, p * PANEL);
  }
}
