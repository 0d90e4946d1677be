// Vectors of floats with the size of a register, by the vector extension of GCC and Clang: the same source for every
// instruction set. (GCC keeps vectors wider than a register in memory and moves them for every operation.)
//
// Feature maps may be float, bfloat16 or half; computation is always in float.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#ifdef __SSE2__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // in the compiler's header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

// Compilers stop inlining in large functions, and pass vectors to functions through memory.
#define INLINED __attribute__((always_inline))
#define INLINE static inline INLINED

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Lanes __attribute__((vector_size(kLanes * 4)));
typedef int32_t Mask __attribute__((vector_size(kLanes * 4)));  // -1 for selected lanes, otherwise 0
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

INLINE Lanes splat(float value) { return value - Lanes{}; }

INLINE Lanes square_root(Lanes lanes) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(lanes);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(lanes);
#else
  for (int i = 0; i < kLanes; ++i) lanes[i] = std::sqrt(lanes[i]);
  return lanes;
#endif
}

INLINE bool any(Mask mask) {
  int32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= mask[i];
  return bits != 0;
}

INLINE Lanes select(Mask mask, Lanes yes, Lanes no) { return mask ? yes : no; }

// Selects lanes of two vectors by `from(lane)`; indices from kLanes on refer to the second vector.
template <class From, size_t... lane>
INLINE Lanes choose(Lanes a, Lanes b, From from, std::index_sequence<lane...>) {
  return __builtin_shufflevector(a, b, from(int(lane))...);
}

template <class From>
INLINE Lanes choose(Lanes a, Lanes b, From from) {
  return choose(a, b, from, std::make_index_sequence<kLanes>());
}

// Selects lanes by index.
INLINE Lanes permute(Lanes lanes, Mask numbers) {
#if defined(__AVX512F__)
  return _mm512_permutexvar_ps(__m512i(numbers), lanes);
#elif defined(__AVX2__)
  return _mm256_permutevar8x32_ps(lanes, __m256i(numbers));
#else
  Lanes permuted{};
  for (int i = 0; i < kLanes; ++i) permuted[i] = lanes[numbers[i]];
  return permuted;
#endif
}

// A vector with the sums over each of kLanes vectors, by recursive addition of halves.
template <int kCount>
INLINE Lanes sums(const Lanes (&v)[kCount]) {
  if constexpr (kCount == 1) {
    return v[0];
  } else {
    constexpr int kHalf = kCount / 2;
    const auto low = [](int lane) { return lane / kHalf % 2 ? kLanes + lane - kHalf : lane; };
    const auto high = [](int lane) { return lane / kHalf % 2 ? kLanes + lane : lane + kHalf; };
    Lanes halves[kHalf];
    for (int i = 0; i < kHalf; ++i)
      halves[i] = choose(v[i], v[i + kHalf], low) + choose(v[i], v[i + kHalf], high);
    return sums(halves);
  }
}

// Loads and stores of kLanes consecutive values.

INLINE Lanes load(const float* from) {
  Lanes lanes;
  memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

INLINE void store(float* to, Lanes lanes) { memcpy(to, &lanes, sizeof lanes); }

// Loads `count` <= kLanes values; the other lanes are 0.
INLINE Lanes load_some(const float* from, int count) {
  if (count == kLanes) return load(from);
  Lanes lanes{};
  memcpy(&lanes, from, count * sizeof(float));
  return lanes;
}

INLINE void store_some(float* to, Lanes lanes, int count) {
  if (count == kLanes)
    store(to, lanes);
  else
    memcpy(to, &lanes, count * sizeof(float));
}

INLINE Lanes widen(Shorts shorts) {
  const Bits bits = __builtin_convertvector(shorts, Bits) << 16;
  return reinterpret_cast<Lanes>(bits);
}

INLINE Shorts narrow(Lanes lanes) {
  const Bits bits = reinterpret_cast<Bits>(lanes);
  const Bits nearest_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits nan = (bits >> 16) | 0x40;
  return __builtin_convertvector(lanes == lanes ? nearest_even : nan, Shorts);
}

INLINE Lanes load(const BFloat16* from) {
  Shorts shorts;
  memcpy(&shorts, from, sizeof shorts);
  return widen(shorts);
}

INLINE void store(BFloat16* to, Lanes lanes) {
  const Shorts shorts = narrow(lanes);
  memcpy(to, &shorts, sizeof shorts);
}

#ifdef HAS_HALF
INLINE Lanes load(const Half* from) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Halves halves;
  memcpy(&halves, from, sizeof halves);
  return __builtin_convertvector(halves, Lanes);
#endif
}

INLINE void store(Half* to, Lanes lanes) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(lanes, _MM_FROUND_TO_NEAREST_INT));
#else
  const Halves halves = __builtin_convertvector(lanes, Halves);
  memcpy(to, &halves, sizeof halves);
#endif
}
#endif

// Streaming stores, which bypass the cache: maps larger than the cache are evicted before they are read again, and
// bypassing avoids reading lines before writing them. Other threads see the data after `finish_streams`.
constexpr int64_t kLine = 64;  // bytes

#ifdef __SSE2__
constexpr bool kStreams = true;

// Stores kBytes at an address aligned to kBytes.
template <int kBytes>
INLINE void stream(void* target, const void* source) {
  char* to = static_cast<char*>(target);
  const char* from = static_cast<const char*>(source);
#if defined(__AVX512F__)
  if constexpr (kBytes % 64 == 0) {
    for (int i = 0; i < kBytes; i += 64)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to + i), _mm512_loadu_si512(from + i));
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (kBytes % 32 == 0) {
    for (int i = 0; i < kBytes; i += 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    return;
  }
#endif
  for (int i = 0; i + 16 <= kBytes; i += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i)));
  memcpy(to + kBytes / 16 * 16, from + kBytes / 16 * 16, kBytes % 16);
}

INLINE void stream(void* target, const void* source, int64_t bytes) {
  char* to = static_cast<char*>(target);
  const char* from = static_cast<const char*>(source);
  int64_t head = (kLine - reinterpret_cast<intptr_t>(to) % kLine) % kLine;
  if (head > bytes) head = bytes;
  memcpy(to, from, head);
  int64_t i = head;
  for (; i + kLine <= bytes; i += kLine) stream<kLine>(to + i, from + i);
  memcpy(to + i, from + i, bytes - i);
}

INLINE void finish_streams() { _mm_sfence(); }
#else
constexpr bool kStreams = false;
template <int kBytes>
INLINE void stream(void* to, const void* from) {
  memcpy(to, from, kBytes);
}
INLINE void stream(void* to, const void* from, int64_t bytes) { memcpy(to, from, bytes); }
INLINE void finish_streams() {}
#endif

template <class T>
INLINE void store(T* to, Lanes lanes, bool past_cache) {
  if (!past_cache) return store(to, lanes);
  T values[kLanes];
  store(values, lanes);
  stream<sizeof values>(to, values);
}

// The value at an address, as float.
INLINE float first(const float* from) { return *from; }

INLINE float first(const BFloat16* from) {
  const uint32_t bits = uint32_t(from->bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

#ifdef HAS_HALF
INLINE float first(const Half* from) { return float(*from); }
#endif

// Minimum or maximum of each lane and a limit; NaN stays NaN.
INLINE Lanes at_most(Lanes lanes, float limit) {
#if defined(__AVX512F__)
  return _mm512_min_ps(splat(limit), lanes);
#elif defined(__AVX2__)
  return _mm256_min_ps(splat(limit), lanes);
#else
  return lanes > limit ? splat(limit) : lanes;
#endif
}

INLINE Lanes at_least(Lanes lanes, float limit) {
#if defined(__AVX512F__)
  return _mm512_max_ps(splat(limit), lanes);
#elif defined(__AVX2__)
  return _mm256_max_ps(splat(limit), lanes);
#else
  return lanes < limit ? splat(limit) : lanes;
#endif
}

// 1 / lanes for lanes from 1 to 2^126, with a relative error of 2e-7: a Newton step is faster than a division.
INLINE Lanes reciprocal(Lanes lanes) {
#if defined(__AVX512F__)
  const Lanes near = _mm512_rcp14_ps(lanes);
#elif defined(__AVX2__)
  const Lanes near = _mm256_rcp_ps(lanes);
#else
  return 1.0f / lanes;
#endif
#ifdef __AVX2__
  return near * (2.0f - lanes * near);
#endif
}

constexpr float kReach = 126.0f;                         // beyond it, sigmoids are 0 or 1 in float
constexpr float kToPowersOfTwo = -1.44269504088896341f;  // multiplies the argument of a sigmoid

// 2^t = 2^n 2^f, with a polynomial for 2^f and a relative error of at most 8e-8; NaN stays NaN. t is clamped to
// +-kReach, unless kBounded states that this is not needed.
#if defined(__AVX512F__)
// 2^(i / 32).
alignas(64) constexpr float kRoots[32] = {
    1.0f,        1.02189715f, 1.04427378f, 1.06714040f, 1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
    1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f,
    1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
    1.68179283f, 1.71861930f, 1.75625216f, 1.79470907f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f};

// n is a multiple of 1/32, |f| <= 1/64.
template <bool kBounded>
INLINE Lanes power_of_two(Lanes t) {
  if (!kBounded) t = at_most(t, kReach);
  constexpr float kRound = 393216.0f;  // 1.5 * 2^18: adding it rounds to a multiple of 1/32 in the low bits
  const Lanes shifted = t + kRound, n = shifted - kRound, f = t - n;
  const Lanes root = _mm512_permutex2var_ps(load(kRoots), __m512i(shifted), load(kRoots + kLanes));
  const Lanes p = (f * 2.40226507e-1f + 6.93157381e-1f) * f + 1.0f;
  return p * Lanes(_mm512_scalef_ps(root, n));  // scalef uses the integer part of n
}
#elif defined(__AVX2__)
// The bits of 2^(i / 8), minus the contribution of i to the exponent below.
alignas(32) constexpr uint32_t kRoots[8] = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                                            0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};

// n is a multiple of 1/8, |f| <= 1/16.
template <bool kBounded>
INLINE Lanes power_of_two(Lanes t) {
  if (!kBounded) t = at_least(at_most(t, kReach), -kReach);
  constexpr float kRound = 1572864.0f;  // 1.5 * 2^20: adding it rounds to a multiple of 1/8 in the low bits
  const Lanes shifted = t + kRound, n = shifted - kRound, f = t - n;
  const Bits roots = Bits(_mm256_permutevar8x32_epi32(*reinterpret_cast<const __m256i*>(kRoots), __m256i(shifted)));
  const Lanes root = reinterpret_cast<Lanes>(roots + (reinterpret_cast<Bits>(shifted) << 20));  // 2^n
  const Lanes p = ((f * 5.5496220e-2f + 2.4025763e-1f) * f + 6.9314721e-1f) * f + 1.0f;
  return p * root;
}
#else
// n is an integer, |f| <= 1/2.
template <bool kBounded>
INLINE Lanes power_of_two(Lanes t) {
  if (!kBounded) t = at_least(at_most(t, kReach), -kReach);
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Lanes shifted = t + kRound, n = shifted - kRound, f = t - n;
  Lanes p = f * 1.3276472e-3f + 9.67554133e-3f;
  p = p * f + 5.55071327e-2f;
  p = p * f + 2.40221197e-1f;
  p = p * f + 6.93146967e-1f;
  p = p * f + 1.00000007f;
  return reinterpret_cast<Lanes>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23));
}
#endif

// Gates, and 1 minus gates.
struct Gate {
  Lanes open, closed;
};

// 1 / (1 + 2^t) = sigmoid(-t ln 2).
template <bool kBounded = false>
INLINE Gate gate_of(Lanes t) {
  const Lanes power = power_of_two<kBounded>(t), open = reciprocal(1.0f + power);
  return {open, open * power};
}

// Calls use(gate) with gate = gate_of, without clamping if exponents are bounded by kReach.
template <class Use>
INLINE void with_gate(bool bounded, Use use) {
  if (bounded)
    use([](Lanes t) INLINED { return gate_of<true>(t); });
  else
    use([](Lanes t) INLINED { return gate_of(t); });
}
