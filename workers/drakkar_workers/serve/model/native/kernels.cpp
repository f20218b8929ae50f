// What a decoder computes between and in its matrix products, for CPUs. Called through ctypes:
// plain pointers and numbers, all arrays contiguous and owned by the caller.
#include "gemm.h"
#include "attention.h"

template <class T>
static void norm_row(const float* x, const float* weight, float epsilon, int width, T* out) {
  float squares = 0;
  vfloat sums{};
  int i = 0;
  for (; i + LANES <= width; i += LANES) sums += load(x + i) * load(x + i);
  squares = sum(sums);
  for (; i < width; i++) squares += x[i] * x[i];
  const float scale = 1.0f / std::sqrt(squares / width + epsilon);
  for (i = 0; i < width; i++) narrow(x[i] * scale * weight[i], out + i);
}

struct Rope {
  int kind, tokens, heads, kv_heads, width;
  float epsilon;
  const float* qkv;         // [tokens, (heads + 2 kv_heads) x width]
  const float* q_norm;      // [width] or null
  const float* k_norm;
  const float* cos;         // [positions, width / 2]
  const float* sin;
  const int32_t* positions;  // [tokens]
  const int32_t* slots;      // [tokens]: block x 16 + offset
  void* q;                   // [tokens, heads, width]
  void* keys;                // of this layer
  void* values;
};

// Turns a head's halves, as Hugging Face lays them.
static void turn(const float* x, const float* norm, const Rope& r, int position, float* out) {
  float normed[WIDEST];
  if (norm) {
    norm_row(x, norm, r.epsilon, r.width, normed);
    x = normed;
  }
  const int half = r.width / 2;
  const float *cos = r.cos + size_t(position) * half, *sin = r.sin + size_t(position) * half;
  for (int e = 0; e < half; e++) {
    out[e] = x[e] * cos[e] - x[e + half] * sin[e];
    out[e + half] = x[e + half] * cos[e] + x[e] * sin[e];
  }
}

template <class T>
static void rope_token(const Rope& r, int t) {
  const float* x = r.qkv + size_t(t) * (r.heads + 2 * r.kv_heads) * r.width;
  constexpr int n = Pair<T>::n;
  float turned[WIDEST];
  for (int h = 0; h < r.heads; h++, x += r.width) {
    turn(x, r.q_norm, r, r.positions[t], turned);
    T* q = (T*)r.q + (size_t(t) * r.heads + h) * r.width;
    for (int e = 0; e < r.width; e++) narrow(turned[e], q + e);
  }
  const int offset = r.slots[t] % BLOCK;
  const size_t block = size_t(r.slots[t] / BLOCK) * r.kv_heads * BLOCK * r.width;
  for (int h = 0; h < r.kv_heads; h++, x += r.width) {
    turn(x, r.k_norm, r, r.positions[t], turned);
    T* keys = (T*)r.keys + block + size_t(h) * BLOCK * r.width;
    for (int e = 0; e < r.width; e++)
      narrow(turned[e], keys + (size_t(e / n) * BLOCK + offset) * n + e % n);
  }
  for (int h = 0; h < r.kv_heads; h++, x += r.width) {
    T* values = (T*)r.values + block + size_t(h) * BLOCK * r.width;
    for (int e = 0; e < r.width; e++)
      narrow(x[e], values + (size_t(offset / n) * r.width + e) * n + offset % n);
  }
}

template <class T>
static void swiglu_row(const float* gate, int width, T* out) {
  const float* up = gate + width;
  int i = 0;
  for (; i + LANES <= width; i += LANES) {
    vfloat g = load(gate + i), v = g / (1.0f + exponential(-g)) * load(up + i);
    for (int j = 0; j < LANES; j++) narrow(v[j], out + i + j);
  }
  for (; i < width; i++) narrow(gate[i] / (1.0f + std::exp(-gate[i])) * up[i], out + i);
}

// Few rows are not worth waking a thread.
template <class Work>
static void each_row(int rows, int threads, const Work& work) {
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows >= 16)
  for (int t = 0; t < rows; t++) work(t);
}

extern "C" {

int drakkar_has_bf16() {
#if defined(__AVX512BF16__)
  return 1;
#else
  return 0;
#endif
}

void drakkar_gemm(const Gemm* g, int threads) { gemm(*g, threads); }

void drakkar_attention(const Attention* a, int threads) { attend(*a, threads); }

void drakkar_norm(int kind, const float* x, const float* weight, float epsilon, int rows, int width,
                  void* out, int threads) {
  each_row(rows, threads, [&](int t) {
    const size_t at = size_t(t) * width;
    if (kind == F32) norm_row(x + at, weight, epsilon, width, (float*)out + at);
    else norm_row(x + at, weight, epsilon, width, (bf16*)out + at);
  });
}

void drakkar_rope(const Rope* r, int threads) {
  each_row(r->tokens, threads, [&](int t) {
    if (r->kind == F32) rope_token<float>(*r, t);
    else rope_token<bf16>(*r, t);
  });
}

// gate_up: [rows, 2 x width], the gate first.
void drakkar_swiglu(int kind, const float* gate_up, int rows, int width, void* out, int threads) {
  each_row(rows, threads, [&](int t) {
    const float* row = gate_up + size_t(t) * 2 * width;
    if (kind == F32) swiglu_row(row, width, (float*)out + size_t(t) * width);
    else swiglu_row(row, width, (bf16*)out + size_t(t) * width);
  });
}
}
