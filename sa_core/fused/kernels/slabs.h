// Channel positions in maps in channels_last, (images, positions, channels), and the division of work: a worker
// processes an image, or a slab of its channels, a few positions at a time. Constants of a channel are loaded once for
// these positions, and memory is read in order.
#pragma once

#include <algorithm>

#include "pairs.h"

// The channels of a pair of vectors, and their order after the shuffle.
enum Order {
  kAsTheyAre,    // consecutive channels, without shuffle
  kInterleaved,  // consecutive channels in each half, which are interleaved
  kFolded,       // the same if all channels fit one vector: the pair has two positions
  kScattered,    // up to a pair of consecutive channels, with any permutation, moved one by one
};

// Channels that a worker processes, and its buffers, with one entry per vector (two per pair).
template <class T>
struct Slab {
  int64_t image, first;  // first pair
  int pairs;
  std::vector<Lanes> centres;
  std::vector<Numbers> numbers;
  std::vector<Gradients> gradients;
  std::vector<Totals> totals;
  std::vector<Line> packed;       // of each pair, if gates are packed
  std::vector<char> is_constant;  // whether all gates of a pair are constant
  std::vector<T> buffer[4];       // buffers for blocks of scattered channels

  Slab(int64_t pairs, bool backward, int64_t scattered)
      : centres(2 * pairs), numbers(2 * pairs), gradients(backward ? 2 * pairs : 0), totals(2 * pairs), packed(pairs),
        is_constant(pairs) {
    for (auto& block : buffer) block.resize(scattered);
  }
};

// Consecutive positions, `stride` values apart.
template <class T>
struct View {
  T* at;
  int64_t stride;

  T* operator[](int position) const { return at + position * stride; }
};

// Channel indices of a pair in a map before the shuffle (a, b) and after it (moved).
struct Place {
  int64_t a, b, moved;
};

template <class T, Order kOrder>
class Slabs {
 public:
  static bool takes(const Problem& p) {
    const int64_t blocks = p.permutation ? 0 : p.shuffle_groups;
    const bool one_vector = p.channels == kLanes && p.positions % 2 == 0, pairs = p.channels >= kPairLanes;
    if (kOrder == kAsTheyAre) return blocks == 1 && (pairs || one_vector);
    if (kOrder == kInterleaved) return blocks == 2 && pairs;
    return kOrder == kScattered || (blocks == 2 && one_vector);
  }

  static std::vector<int64_t> order(const Problem& p) { return as_they_are(p); }

 protected:
  Slabs(const Problem& problem, const Channels& channels)
      : p(problem),
        channels(channels),
        folds(kOrder != kScattered && problem.channels == kLanes),
        width(folds ? kPairLanes : problem.channels),
        pixels(folds ? problem.positions / 2 : problem.positions) {
    constexpr int64_t kCached = 16 << 20;  // bytes of a map that may still be in the cache when it is read next
    constexpr int64_t kBlock = 8 << 10;    // bytes of a block, which fit in a first-level cache
    const int64_t bytes = width * int64_t(sizeof(T)), pairs = (width + kPairLanes - 1) / kPairLanes;
    const bool is_large = kStreams && kOrder != kScattered && p.images * pixels * bytes > kCached;
    // Streaming stores are only used for full cache lines.
    streams_moved = is_large && width % kPairLanes == 0 && kPairLanes * sizeof(T) % kLine == 0;
    streams = streams_moved && kLanes * sizeof(T) % kLine == 0;
    block = int(std::max<int64_t>(8, std::min<int64_t>(64, kBlock / bytes)));
    // The smallest number of slabs that divides the work about equally among the workers.
    const auto idle = [&] { return (p.threads - p.images * slabs % p.threads) % p.threads; };
    for (slabs = 1; slabs < pairs && idle() * 10 > p.images * slabs;) ++slabs;
    together = (pairs + slabs - 1) / slabs;
    slabs = (pairs + together - 1) / together;
  }

  // Calls body(slab) for all slabs, which are divided among the workers.
  template <class Body>
  void each(Body body) const {
    const int64_t all = p.images * slabs, share = (all + p.threads - 1) / p.threads;
    const int64_t pairs = (width + kPairLanes - 1) / kPairLanes;
#pragma omp parallel for schedule(static, 1) num_threads(p.threads)
    for (int64_t worker = 0; worker < p.threads; ++worker) {
      Slab<T> slab(together, p.grad_out, kOrder == kScattered ? block * together * kPairLanes : 0);
      for (int64_t number = worker * share; number < std::min(all, (worker + 1) * share); ++number) {
        slab.image = number / slabs;
        slab.first = number % slabs * together;
        slab.pairs = int(std::min(together, pairs - slab.first));
        body(slab);
      }
      if (streams_moved) finish_streams();
    }
  }

  // Calls body(first position, count).
  template <class Body>
  void each_block(Body body) const {
    for (int64_t at = 0; at < pixels; at += block) body(at, int(std::min<int64_t>(block, pixels - at)));
  }

  // First channel of a pair. The last pair ends with the last channel and may overlap the one before.
  int64_t begin(const Slab<T>& slab, int pair) const {
    const int64_t number = slab.first + pair;
    if (kOrder == kScattered) return number * kPairLanes;
    if (kOrder == kInterleaved) return std::min(number * kLanes, width / 2 - kLanes);
    return std::min(number * kPairLanes, width - kPairLanes);
  }

  // Number of vectors of consecutive channels. Two positions folded into a pair share one vector.
  int vectors(const Slab<T>& slab) const {
    if (kOrder != kScattered) return folds ? 1 : 2 * slab.pairs;
    return int((std::min(begin(slab, slab.pairs), width) - begin(slab, 0) + kLanes - 1) / kLanes);
  }
  int64_t channel(const Slab<T>& slab, int vector) const {
    const int64_t from = begin(slab, vector / 2);
    return vector % 2 ? from + (kOrder == kInterleaved ? width / 2 : kLanes) : from;
  }
  int lanes(const Slab<T>& slab, int vector) const {
    return int(std::min<int64_t>(kLanes, p.channels - channel(slab, vector)));
  }
  int64_t row(const Slab<T>& slab, int vector) const { return slab.image * p.channels + channel(slab, vector); }

  static Lanes first_half(Lanes a, Lanes b) {
    return choose(a, b, [](int lane) { return lane < kLanes / 2 ? lane : lane + kLanes / 2; });
  }
  static Lanes second_half(Lanes a, Lanes b) {
    return choose(a, b, [](int lane) { return lane < kLanes / 2 ? lane + kLanes / 2 : lane + kLanes; });
  }

  // Stores the constants of a vector of channels, a struct of vectors, in the order of processing.
  template <class Entry>
  void put(const Entry& entry, std::vector<Entry>& where, int vector) const {
    where[vector] = entry;
    if (!folds) return;
    where[1] = entry;
    if (kOrder != kFolded) return;
    for (size_t i = 0; i < sizeof(Entry); i += sizeof(Lanes)) {
      const Lanes lanes = load(reinterpret_cast<const float*>(reinterpret_cast<const char*>(&entry) + i));
      store(reinterpret_cast<float*>(reinterpret_cast<char*>(&where[0]) + i), first_half(lanes, lanes));
      store(reinterpret_cast<float*>(reinterpret_cast<char*>(&where[1]) + i), second_half(lanes, lanes));
    }
  }

  // Adds the sums of two positions that are folded into a pair.
  void unfold(Slab<T>& slab) const {
    if (!folds) return;
    for (int sum = 0; sum < 4; ++sum) {
      double *a = slab.totals[0].of[sum].values, *b = slab.totals[1].of[sum].values, values[kLanes];
      constexpr int kHalf = kLanes / 2;
      for (int lane = 0; lane < kLanes; ++lane)
        if (kOrder != kFolded)
          values[lane] = a[lane] + b[lane];
        else
          values[lane] = lane < kHalf ? a[lane] + a[lane + kHalf] : b[lane - kHalf] + b[lane];
      std::copy(values, values + kLanes, a);
    }
  }

  View<T> in_map(const Slab<T>& slab, const void* map, int64_t at) const {
    T* pixel = static_cast<T*>(const_cast<void*>(map)) + (slab.image * pixels + at) * width;
    return {kOrder == kScattered ? pixel + begin(slab, 0) : pixel, width};
  }
  // Destination of positions with the channel order before the shuffle, and after it. It is a buffer if the map cannot
  // be written in vectors.
  View<T> target(Slab<T>& slab, const void* map, int64_t at, int number) const {
    return kOrder == kScattered && width % kPairLanes != 0 ? buffer(slab, number) : in_map(slab, map, at);
  }
  View<T> moved_target(Slab<T>& slab, const void* map, int64_t at, int number) const {
    return kOrder == kScattered ? buffer(slab, number) : in_map(slab, map, at);
  }
  View<T> buffer(Slab<T>& slab, int number) const { return {slab.buffer[number].data(), together * kPairLanes}; }

  // Calls body(value in the buffer, position in the map, channel) for the scattered channels of some positions.
  template <class Body>
  void each_scattered(const Slab<T>& slab, View<T> buffer, const void* map, int64_t at, int count, Body body) const {
    const int64_t from = begin(slab, 0), here = std::min(begin(slab, slab.pairs), width) - from;
    T* pixel = static_cast<T*>(const_cast<void*>(map)) + (slab.image * pixels + at) * width;
    for (int k = 0; k < count; ++k, buffer.at += buffer.stride, pixel += width)
      for (int64_t i = 0; i < here; ++i) body(buffer.at[i], pixel, from + i);
  }
  View<T> source(Slab<T>& slab, const void* map, int64_t at, int count, int number) const {
    const View<T> view = target(slab, map, at, number);
    if (kOrder == kScattered && width % kPairLanes != 0)
      each_scattered(slab, view, map, at, count, [](T& to, const T* pixel, int64_t c) { to = pixel[c]; });
    return view;
  }
  View<T> moved_source(Slab<T>& slab, const void* map, int64_t at, int count, int number) const {
    const View<T> view = moved_target(slab, map, at, number);
    if (kOrder == kScattered && map)
      each_scattered(slab, view, map, at, count,
                     [&](T& to, const T* pixel, int64_t c) { to = pixel[channels.moved[c]]; });
    return view;
  }
  void deliver(const Slab<T>& slab, View<T> view, void* map, int64_t at, int count) const {
    if (kOrder == kScattered && width % kPairLanes != 0)
      each_scattered(slab, view, map, at, count, [](T& from, T* pixel, int64_t c) { pixel[c] = from; });
  }
  void deliver_moved(const Slab<T>& slab, View<T> view, void* map, int64_t at, int count) const {
    if (kOrder == kScattered)
      each_scattered(slab, view, map, at, count,
                     [&](T& from, T* pixel, int64_t c) { pixel[channels.moved[c]] = from; });
  }

  Place place(const Slab<T>& slab, int pair) const {
    if (kOrder == kScattered) return {pair * kPairLanes, pair * kPairLanes + kLanes, pair * kPairLanes};
    const int64_t a = channel(slab, 2 * pair);
    return {a, channel(slab, 2 * pair + 1), kOrder == kInterleaved ? 2 * a : a};
  }

  INLINED static Pair read(const T* pixel, Place at) {
    const Lanes a = load(pixel + at.a), b = load(pixel + at.b);
    if (kOrder == kFolded) return {first_half(a, b), second_half(a, b)};
    return {a, b};
  }
  // Prefetches a pair.
  INLINED static void fetch(const T* pixel, Place at) {
    __builtin_prefetch(pixel + at.a);
    __builtin_prefetch(pixel + at.b);
  }
  INLINED static void fetch_moved(const T* pixel, Place at) {
    __builtin_prefetch(pixel + at.moved);
    if (kPairLanes * sizeof(T) > kLine) __builtin_prefetch(pixel + at.moved + kLanes);
  }
  INLINED static void write(T* pixel, Place at, Pair v, bool past_cache) {
    if (kOrder == kFolded) v = {first_half(v.a, v.b), second_half(v.a, v.b)};
    store(pixel + at.a, v.a, past_cache);
    store(pixel + at.b, v.b, past_cache);
  }

  // The same for maps with the channel order after the shuffle.
  INLINED static Pair read_moved(const T* pixel, Place at) {
    const Lanes low = load(pixel + at.moved), high = load(pixel + at.moved + kLanes);
    if (kOrder == kAsTheyAre || kOrder == kScattered) return {low, high};
    return {choose(low, high, [](int lane) { return 2 * lane; }),
            choose(low, high, [](int lane) { return 2 * lane + 1; })};
  }
  INLINED static void write_moved(T* pixel, Place at, Pair v, bool past_cache) {
    if (kOrder == kInterleaved || kOrder == kFolded)
      v = {choose(v.a, v.b, [](int lane) { return lane / 2 + lane % 2 * kLanes; }),
           choose(v.a, v.b, [](int lane) { return (kLanes + lane) / 2 + lane % 2 * kLanes; })};
    store(pixel + at.moved, v.a, past_cache);
    store(pixel + at.moved + kLanes, v.b, past_cache);
  }

  const Problem& p;
  const Channels& channels;
  const bool folds;      // whether a pair has two positions of a single vector of channels
  const int64_t width;   // values per pixel: channels, or those of two positions if folded
  const int64_t pixels;  // pixels per image
  int64_t slabs;         // per image
  int64_t together;      // pairs per slab
  int block;             // pixels that are processed together
  bool streams;          // whether maps with the channel order before the shuffle are written by streaming stores
  bool streams_moved;    // whether maps with the channel order after the shuffle are
};
