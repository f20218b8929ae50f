// Sixteen lanes with the compiler's vector extensions: one source for AVX512, AVX2 and NEON.
//
// bf16 values travel in pairs, one pair per 32-bit lane, the lower half first; `Pair<T>::n` values
// of the inner dimension are multiplied and added per lane.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

constexpr int LANES = 16;
typedef float vfloat __attribute__((vector_size(64)));
typedef uint32_t vbits __attribute__((vector_size(64)));
typedef int32_t vint __attribute__((vector_size(64)));

struct bf16 {
  uint16_t bits;
};

static inline vfloat splat(float x) { return vfloat{} + x; }
static inline vfloat load(const float* p) {
  vfloat v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void store(float* p, vfloat v) { memcpy(p, &v, sizeof v); }

static inline float widen(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float out;
  memcpy(&out, &bits, 4);
  return out;
}
static inline float widen(float x) { return x; }

static inline void narrow(float x, float* out) { *out = x; }
static inline void narrow(float x, bf16* out) {  // to nearest, ties to even
  uint32_t bits;
  memcpy(&bits, &x, 4);
  out->bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// What a lane multiplies: one float, or two bf16.
template <class T>
struct Pair;
template <>
struct Pair<float> {
  static constexpr int n = 1;
  typedef vfloat vec;
  typedef float one;
};
template <>
struct Pair<bf16> {
  static constexpr int n = 2;
  typedef vbits vec;
  typedef uint32_t one;
};

template <class T>
static inline typename Pair<T>::vec load_pairs(const T* p) {
  typename Pair<T>::vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
static inline typename Pair<T>::one load_one(const T* p) {
  typename Pair<T>::one v;
  memcpy(&v, p, sizeof v);
  return v;
}

// acc + a * x in each lane.
static inline vfloat dot(vfloat acc, vfloat a, float x) { return acc + a * x; }
static inline vfloat dot(vfloat acc, vbits a, uint32_t x) {
#if defined(__AVX512BF16__)
  return (vfloat)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)_mm512_set1_epi32(int(x)));
#else
  float low, high;
  uint32_t low_bits = x << 16, high_bits = x & 0xffff0000u;
  memcpy(&low, &low_bits, 4);
  memcpy(&high, &high_bits, 4);
  acc += (vfloat)(a << 16) * low;
  return acc + (vfloat)(a & 0xffff0000u) * high;
#endif
}

// Sixteen small whole numbers as 32-bit ones.
static inline vint extend(const int8_t* p) {
#if defined(__AVX512F__)  // gcc 12 would convert them one by one
  return (vint)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
#else
  vint v;
  for (int i = 0; i < LANES; i++) v[i] = p[i];
  return v;
#endif
}
static inline vint extend(const uint8_t* p) {
#if defined(__AVX512F__)
  return (vint)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
#else
  vint v;
  for (int i = 0; i < LANES; i++) v[i] = p[i];
  return v;
#endif
}

static inline float sum(vfloat v) {
  float lanes[LANES];
  store(lanes, v);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
}
static inline float highest(vfloat v) {
  float lanes[LANES];
  store(lanes, v);
  for (int width = LANES / 2; width; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}
static inline vfloat larger(vfloat a, vfloat b) { return a > b ? a : b; }

// e^x to about 2 units in the last place, 0 below -87 (Cephes' expf: range reduction by ln 2, then
// a polynomial of degree 5).
static inline vfloat exponential(vfloat x) {
  const vint below = x < -87.0f;
  x = larger(x, splat(-87.0f));
  x = x > 88.0f ? splat(88.0f) : x;
  vfloat shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 x 2^23: rounds to an integer
  vfloat n = shifted - 12582912.0f;
  vfloat r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vfloat p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  vint exponent = __builtin_convertvector(n, vint) + 127;
  vfloat scaled = p * (vfloat)(exponent << 23);
  return below ? vfloat{} : scaled;
}
