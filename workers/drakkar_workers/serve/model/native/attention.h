// Causal attention over a paged cache of keys and values, for pieces of sequences of any length.
//
// A block holds 16 tokens of one key-value head: keys as [width / pair][16][pair], values as
// [16 / pair][width][pair], so that both products run like the matrix products, without sums across
// lanes. Keys are taken 64 at a time from the beginning of the sequence, with a running maximum
// (Milakov and Gimelshein, arXiv 1805.02867): a token's result does not depend on how its sequence
// was cut into pieces, to the last bit.
#pragma once
#include "vector.h"

constexpr int BLOCK = 16;
constexpr int SPAN = 4;     // blocks that are taken at once
constexpr int QUERIES = 16;  // tokens of one work item
constexpr int WIDEST = 256;

struct Attention {
  int kind, items, heads, kv_heads, width, table_stride;
  float scale;
  const void* q;          // [tokens, heads, width]
  const void* keys;       // of this layer: [blocks, kv_heads, 16 x width]
  const void* values;
  const int32_t* table;   // [sequences, table_stride]: block numbers
  const int32_t* work;    // [items, 4]: sequence, first token's row, tokens, first token's position
  void* out;              // [tokens, heads, width]
};

template <class T>
struct State {
  float top, sum;
  float out[WIDEST];
  alignas(64) T weights[SPAN * BLOCK];
};

template <class T, int M>
static inline void scores(const T* const* q, const T* const* keys, int blocks, int width,
                          vfloat s[M][SPAN]) {
  for (int m = 0; m < M; m++)
    for (int b = 0; b < SPAN; b++) s[m][b] = vfloat{};
  for (int e = 0; e < width / Pair<T>::n; e++) {
    typename Pair<T>::vec k[SPAN];
#pragma GCC unroll 4
    for (int b = 0; b < SPAN; b++) k[b] = load_pairs(keys[b] + e * BLOCK * Pair<T>::n);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
      auto a = load_one(q[m] + e * Pair<T>::n);
#pragma GCC unroll 4
      for (int b = 0; b < SPAN; b++) s[m][b] = dot(s[m][b], k[b], a);
    }
  }
}

template <class T, int M, int V>
static inline void mix(State<T>* rows, const T* const* values, int blocks, int width, int at) {
  vfloat acc[M][V];
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) acc[m][v] = load(rows[m].out + at + v * LANES);
  for (int b = 0; b < blocks; b++) {
    for (int i = 0; i < BLOCK / Pair<T>::n; i++) {
      typename Pair<T>::vec row[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; v++)
        row[v] = load_pairs(values[b] + (size_t(i) * width + at + v * LANES) * Pair<T>::n);
#pragma GCC unroll 4
      for (int m = 0; m < M; m++) {
        auto a = load_one(rows[m].weights + b * BLOCK + i * Pair<T>::n);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) acc[m][v] = dot(acc[m][v], row[v], a);
      }
    }
  }
  for (int m = 0; m < M; m++)
    for (int v = 0; v < V; v++) store(rows[m].out + at + v * LANES, acc[m][v]);
}

// One span of keys for M rows; `seen[m]` keys from the span's beginning on may be seen by row m.
template <class T, int M>
static void span(const T* const* q, State<T>* rows, const T* const* keys, const T* const* values,
                 int blocks, const int* seen, int width, float scale) {
  static const vint lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vfloat s[M][SPAN];
  scores<T, M>(q, keys, blocks, width, s);
  for (int m = 0; m < M; m++) {
    State<T>& row = rows[m];
    vfloat top = splat(-INFINITY);
    for (int b = 0; b < SPAN; b++) {
      s[m][b] = lane < seen[m] - b * BLOCK ? s[m][b] * scale : splat(-INFINITY);
      top = larger(top, s[m][b]);
    }
    const float before = row.top, now = std::fmax(before, highest(top));
    if (now == -INFINITY) {  // nothing to see here
      memset(row.weights, 0, sizeof row.weights);
      continue;
    }
    vfloat total{};
    for (int b = 0; b < SPAN; b++) {
      vfloat p = exponential(s[m][b] - now);
      total += p;
      for (int i = 0; i < BLOCK; i++) narrow(p[i], row.weights + b * BLOCK + i);
    }
    if (now != before) {
      const float shrink = before == -INFINITY ? 0.0f : exponential(splat(before - now))[0];
      row.sum *= shrink;
      for (int e = 0; e < width; e += LANES) store(row.out + e, load(row.out + e) * shrink);
      row.top = now;
    }
    row.sum += sum(total);
  }
  int e = 0;
  for (; e + 4 * LANES <= width; e += 4 * LANES) mix<T, M, 4>(rows, values, blocks, width, e);
  for (; e < width; e += LANES) mix<T, M, 1>(rows, values, blocks, width, e);
}

template <class T>
static void attend_item(const Attention& a, const int32_t* work, int kv_head) {
  const int group = a.heads / a.kv_heads, tokens = work[2], first = work[3];
  const int32_t* table = a.table + size_t(work[0]) * a.table_stride;
  const size_t head_size = size_t(BLOCK) * a.width, block_size = head_size * a.kv_heads;
  const int count = tokens * group;
  static thread_local State<T>* states = nullptr;
  static thread_local int room = 0;
  if (count > room) {
    delete[] states;
    states = new State<T>[room = count];
  }
  for (int i = 0; i < count; i++) {
    states[i].top = -INFINITY;
    states[i].sum = 0;
    memset(states[i].out, 0, sizeof(float) * a.width);
  }
  auto row_of = [&](int i) {  // of q and out
    return (size_t(work[1] + i / group) * a.heads + kv_head * group + i % group) * a.width;
  };
  const int length = first + tokens;
  for (int from = 0; from < length; from += SPAN * BLOCK) {
    const int blocks = std::min(SPAN, (length - from + BLOCK - 1) / BLOCK);
    const T *keys[SPAN], *values[SPAN];
    for (int b = 0; b < SPAN; b++) {  // missing blocks repeat the last one, and are masked
      const size_t at = size_t(table[from / BLOCK + std::min(b, blocks - 1)]) * block_size +
                        kv_head * head_size;
      keys[b] = (const T*)a.keys + at;
      values[b] = (const T*)a.values + at;
    }
    for (int i = 0; i < count;) {
      const int m = std::min(4, count - i);
      const T* q[4];
      int seen[4];
      for (int j = 0; j < m; j++) {
        q[j] = (const T*)a.q + row_of(i + j);
        seen[j] = first + (i + j) / group + 1 - from;
      }
      switch (m) {
        case 4: span<T, 4>(q, states + i, keys, values, blocks, seen, a.width, a.scale); break;
        case 3: span<T, 3>(q, states + i, keys, values, blocks, seen, a.width, a.scale); break;
        case 2: span<T, 2>(q, states + i, keys, values, blocks, seen, a.width, a.scale); break;
        case 1: span<T, 1>(q, states + i, keys, values, blocks, seen, a.width, a.scale); break;
      }
      i += m;
    }
  }
  for (int i = 0; i < count; i++)
    for (int e = 0; e < a.width; e++)
      narrow(states[i].out[e] / states[i].sum, (T*)a.out + row_of(i) + e);
}

static void attend(const Attention& a, int threads) {
  const int count = a.items * a.kv_heads;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (threads > 1 && count > 1)
  for (int i = 0; i < count; i++) {
    const int32_t* work = a.work + size_t(i / a.kv_heads) * 4;
    if (a.kind == F32) attend_item<float>(a, work, i % a.kv_heads);
    else attend_item<bf16>(a, work, i % a.kv_heads);
  }
}
