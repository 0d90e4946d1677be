// Sixteen floats at a time, in the vector extension of GCC and Clang: the same source for every instruction set.
//
// Feature maps may be float, bfloat16 or half; what is computed is always float.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __SSE2__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // of the compiler's own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

constexpr int kLanes = 16;

typedef float Lanes __attribute__((vector_size(kLanes * 4)));
typedef int32_t Mask __attribute__((vector_size(kLanes * 4)));  // -1 where a lane counts, otherwise 0
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef uint16_t Shorts __attribute__((vector_size(kLanes * 2)));

struct BFloat16 {
  uint16_t bits;
};
#ifdef __FLT16_MANT_DIG__
#define HAS_HALF 1
typedef _Float16 Half;
typedef Half Halves __attribute__((vector_size(kLanes * 2)));
#endif

static inline Lanes splat(float value) { return value - Lanes{}; }

static inline Lanes square_root(Lanes lanes) {
  for (int i = 0; i < kLanes; ++i) lanes[i] = std::sqrt(lanes[i]);
  return lanes;
}

static inline bool any(Mask mask) {
  int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= mask[i];
  return bits != 0;
}

static inline Lanes select(Mask mask, Lanes yes, Lanes no) { return mask ? yes : no; }

// The sums over each of kLanes vectors, side by side: halves are added, of ever more vectors together.
static inline Lanes sums(const Lanes (&v)[kLanes]) {
  Lanes halves[8], quarters[4], pairs[2];
  for (int i = 0; i < 8; ++i) {
    const Lanes a = v[i], b = v[i + 8];
    halves[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  for (int i = 0; i < 4; ++i) {
    const Lanes a = halves[i], b = halves[i + 4];
    quarters[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
                  __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  }
  for (int i = 0; i < 2; ++i) {
    const Lanes a = quarters[i], b = quarters[i + 2];
    pairs[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  return __builtin_shufflevector(pairs[0], pairs[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         __builtin_shufflevector(pairs[0], pairs[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

// Reads and writes of kLanes neighbours.

static inline Lanes load(const float* from) {
  Lanes lanes;
  memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

static inline void store(float* to, Lanes lanes) { memcpy(to, &lanes, sizeof lanes); }

// Of fewer than kLanes: the others are 0.
static inline Lanes load_some(const float* from, int count) {
  if (count == kLanes) return load(from);
  Lanes lanes{};
  memcpy(&lanes, from, count * sizeof(float));
  return lanes;
}

static inline void store_some(float* to, Lanes lanes, int count) {
  if (count == kLanes)
    store(to, lanes);
  else
    memcpy(to, &lanes, count * sizeof(float));
}

static inline Lanes widen(Shorts shorts) {
  const Bits bits = __builtin_convertvector(shorts, Bits) << 16;
  return reinterpret_cast<Lanes>(bits);
}

static inline Shorts narrow(Lanes lanes) {
  const Bits bits = reinterpret_cast<Bits>(lanes);
  const Bits nearest_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits not_a_number = (bits >> 16) | 0x40;
  return __builtin_convertvector(lanes == lanes ? nearest_even : not_a_number, Shorts);
}

static inline Lanes load(const BFloat16* from) {
  Shorts shorts;
  memcpy(&shorts, from, sizeof shorts);
  return widen(shorts);
}

static inline void store(BFloat16* to, Lanes lanes) {
  const Shorts shorts = narrow(lanes);
  memcpy(to, &shorts, sizeof shorts);
}

#ifdef HAS_HALF
static inline Lanes load(const Half* from) {
  Halves halves;
  memcpy(&halves, from, sizeof halves);
  return __builtin_convertvector(halves, Lanes);
}

static inline void store(Half* to, Lanes lanes) {
  const Halves halves = __builtin_convertvector(lanes, Halves);
  memcpy(to, &halves, sizeof halves);
}
#endif

// Writes past the cache: what is larger than the cache has left it before it is read again, and need not be read into it
// to be written. What was written is seen by other threads after `finish_streams`.
#ifdef __SSE2__
constexpr bool kStreams = true;

static inline void stream(void* target, const void* source, int64_t bytes) {
  char* to = static_cast<char*>(target);
  const char* from = static_cast<const char*>(source);
  constexpr int64_t kLine = 64;
  int64_t head = (kLine - reinterpret_cast<intptr_t>(to) % kLine) % kLine;
  if (head > bytes) head = bytes;
  memcpy(to, from, head);
  int64_t i = head;
  for (; i + kLine <= bytes; i += kLine)
#ifdef __AVX512F__
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
#else
    for (int64_t j = i; j < i + kLine; j += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + j), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j)));
#endif
  memcpy(to + i, from + i, bytes - i);
}

static inline void finish_streams() { _mm_sfence(); }
#else
constexpr bool kStreams = false;
static inline void stream(void* to, const void* from, int64_t bytes) { memcpy(to, from, bytes); }
static inline void finish_streams() {}
#endif

// The value that is pointed to.
static inline float first(const float* from) { return *from; }

static inline float first(const BFloat16* from) {
  const uint32_t bits = uint32_t(from->bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

#ifdef HAS_HALF
static inline float first(const Half* from) { return float(*from); }
#endif

// 1 / (1 + 2^t), which is the sigmoid of -t ln 2: t = n + f, and 2^f is a polynomial within 8 in 10^8. Beyond what float
// holds it is 0 or 1; nan stays nan.
constexpr float kToPowersOfTwo = -1.44269504088896341f;  // multiplies the argument of a sigmoid

#ifdef __AVX512F__
// 2^(i / 32).
alignas(64) constexpr float kRoots[32] = {
    1.0f,        1.02189715f, 1.04427378f, 1.06714040f, 1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
    1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f,
    1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
    1.68179283f, 1.71861930f, 1.75625216f, 1.79470907f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f};

// n is a number of 32nds, |f| <= 1/64. The division takes less time than a reciprocal that is made exact by
// multiplications, of which there are enough already.
static inline Lanes inverse_of_one_plus_power(Lanes t) {
  constexpr float kRound = 393216.0f;  // 1.5 * 2^18: adding it leaves a number of 32nds in the low bits
  const Lanes shifted = t + kRound, n = shifted - kRound, f = t - n;
  const Lanes root = _mm512_permutex2var_ps(load(kRoots), __m512i(shifted), load(kRoots + kLanes));
  const Lanes p = (f * 2.40226507e-1f + 6.93157381e-1f) * f + 1.0f;
  return 1.0f / (1.0f + p * Lanes(_mm512_scalef_ps(root, n)));  // of n, it takes what is whole
}
#else
// n is a whole number, |f| <= 1/2.
static inline Lanes inverse_of_one_plus_power(Lanes t) {
  t = t > 126.0f ? splat(126.0f) : t;  // written so that nan stays nan
  t = t < -126.0f ? splat(-126.0f) : t;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves a whole number in the low bits
  const Lanes shifted = t + kRound, n = shifted - kRound, f = t - n;
  Lanes p = f * 1.3276472e-3f + 9.67554133e-3f;
  p = p * f + 5.55071327e-2f;
  p = p * f + 2.40221197e-1f;
  p = p * f + 6.93146967e-1f;
  p = p * f + 1.00000007f;
  return 1.0f / (1.0f + reinterpret_cast<Lanes>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23)));
}
#endif
