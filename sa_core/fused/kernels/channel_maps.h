// Maps whose channels are neighbours: (images, positions, channels). A worker takes some channels of an image: so few
// that they stay in the cache while they are read again.
#pragma once

#include <algorithm>

#include "problem.h"

// How the shuffle orders the two vectors of channels that are worked on together.
enum Order {
  kAsTheyAre,    // channels c to c + 31 stay where they are
  kInterleaved,  // channels c to c + 15 of both halves of the map become 2c to 2c + 31
  kScattered,    // anything else, one by one
};

struct Pair {
  Lanes a{}, b{};
};

constexpr int kPairLanes = 2 * kLanes;
constexpr int kPairs = 2;         // that a worker takes
constexpr int64_t kFlush = 256;  // positions that are summed up in float before they go to a double

inline float& lane_of(Pair& pair, int lane) { return reinterpret_cast<float*>(&pair)[lane]; }

// A worker's share.
template <class T, Order kOrder>
class Share {
 public:
  int pairs = 0;

  Share(const Problem& problem, const int64_t* destination, int64_t image, int64_t number)
      : p(problem), destination(destination), image(image) {
    const int64_t begin = number * kPairs * kPairLanes;
    for (int64_t left = p.channels - begin; pairs < kPairs && left > 0; ++pairs, left -= kPairLanes) {
      base[pairs] = begin + pairs * kPairLanes;
      if (kOrder == kInterleaved) base[pairs] /= 2;
      count[pairs] = left < kPairLanes ? int(left) : kPairLanes;
    }
  }

  int lanes(int pair) const { return count[pair]; }
  int halves(int pair) const { return count[pair] > kLanes ? 2 : 1; }
  int lanes(int pair, int half) const { return half ? count[pair] - kLanes : count[pair] < kLanes ? count[pair] : kLanes; }
  int64_t channel(int pair, int lane) const {
    if (kOrder == kInterleaved && lane >= kLanes) return p.channels / 2 + base[pair] + lane - kLanes;
    return base[pair] + lane;
  }
  int64_t row(int pair, int lane) const { return image * p.channels + channel(pair, lane); }

  T* pixel(const void* map, int64_t position) const {
    return static_cast<T*>(const_cast<void*>(map)) + (image * p.positions + position) * p.channels;
  }

  Pair read(const T* pixel, int pair) const {
    if (kOrder == kScattered) return gather(pixel, pair, [&](int lane) { return channel(pair, lane); });
    return {load(pixel + channel(pair, 0)), load(pixel + channel(pair, kLanes))};
  }
  void write(T* pixel, int pair, Pair v) const {
    if (kOrder == kScattered) return scatter(pixel, pair, v, [&](int lane) { return channel(pair, lane); });
    store(pixel + channel(pair, 0), v.a);
    store(pixel + channel(pair, kLanes), v.b);
  }
  // The same for maps whose channels the shuffle has moved.
  Pair read_moved(const T* pixel, int pair) const {
    if (kOrder == kScattered) return gather(pixel, pair, [&](int lane) { return moved(pair, lane); });
    if (kOrder == kAsTheyAre) return read(pixel, pair);
    const Lanes low = load(pixel + 2 * base[pair]), high = load(pixel + 2 * base[pair] + kLanes);
    return {__builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
            __builtin_shufflevector(low, high, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)};
  }
  void write_moved(T* pixel, int pair, Pair v) const {
    if (kOrder == kScattered) return scatter(pixel, pair, v, [&](int lane) { return moved(pair, lane); });
    if (kOrder == kAsTheyAre) return write(pixel, pair, v);
    store(pixel + 2 * base[pair],
          __builtin_shufflevector(v.a, v.b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    store(pixel + 2 * base[pair] + kLanes,
          __builtin_shufflevector(v.a, v.b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
  }

 private:
  int64_t moved(int pair, int lane) const { return destination[channel(pair, lane)]; }
  template <class Where>
  Pair gather(const T* pixel, int pair, Where where) const {
    T values[kPairLanes] = {};
    for (int lane = 0; lane < count[pair]; ++lane) values[lane] = pixel[where(lane)];
    return {load(values), load(values + kLanes)};
  }
  template <class Where>
  void scatter(T* pixel, int pair, Pair v, Where where) const {
    T values[kPairLanes];
    store(values, v.a);
    store(values + kLanes, v.b);
    for (int lane = 0; lane < count[pair]; ++lane) pixel[where(lane)] = values[lane];
  }

  const Problem& p;
  const int64_t* destination;
  const int64_t image;
  int64_t base[kPairs];
  int count[kPairs];
};

struct PairNumbers {
  Numbers a, b;
};

struct PairGradients {
  Gradients a, b;
};

inline Lanes gradient(const Numbers& n, const Gradients& g, Lanes x, Lanes dy) {
  const Lanes gate = n.gate(x), gated = dy * gate, through_gate = n.through_gate(gated, gate, x);
  return (gated + through_gate * g.c1 + select(g.c2 == 0.0f, g.c0, (x - n.centre) * g.c2 + g.c0)) * n.scale;
}

// Sums of kPairLanes rows: float for some positions, then double.
struct Accumulator {
  Pair recent;
  double total[kPairLanes] = {};

  void add(Lanes a, Lanes b) {
    recent.a += a;
    recent.b += b;
  }
  void flush() {
    for (int lane = 0; lane < kPairLanes; ++lane) total[lane] += lane_of(recent, lane);
    recent = {};
  }
  Lanes lanes(int half) const {
    Lanes lanes;
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = float(total[half * kLanes + lane]);
    return lanes;
  }
};

template <class T, Order kOrder>
class ChannelMaps {
  using Work = Share<T, kOrder>;

 public:
  static std::vector<int64_t> order(const Problem& p) { return as_they_are(p); }

  ChannelMaps(const Problem& problem, const Channels& channels)
      : p(problem), channels(channels), shares((problem.channels + kPairs * kPairLanes - 1) / (kPairs * kPairLanes)) {}

  void statistics(bool of_all_branches) const {
    each([&](const Work& work) { measure(work, of_all_branches); });
  }

  void forward(bool measured) const {
    each([&](const Work& work) {
      if (!measured) measure(work, false);
      PairNumbers numbers[kPairs];
      fill(work, numbers);
      for (int64_t position = 0; position < p.positions; ++position) {
        const T *x = work.pixel(p.x, position), *shortcut = work.pixel(p.shortcut, position);
        T* out = work.pixel(p.out, position);
        for (int i = 0; i < work.pairs; ++i) {
          const Numbers &a = numbers[i].a, &b = numbers[i].b;
          const Pair v = work.read(x, i);
          Pair y = {a.normed(v.a) * a.gate(v.a), b.normed(v.b) * b.gate(v.b)};
          if (p.shortcut) {
            const Pair beside = work.read_moved(shortcut, i);
            y = {relu(y.a + beside.a), relu(y.b + beside.b)};
          }
          work.write_moved(out, i, y);
        }
      }
    });
  }

  // Calls use(row, channel, count, numbers, sums) for rows together, and writes their gradient if it is to.
  template <class Use>
  void backward(Use use, bool write) const {
    each([&](const Work& work) {
      PairNumbers numbers[kPairs];
      fill(work, numbers);
      Accumulator d[kPairs], dx[kPairs], y[kPairs], yx[kPairs];
      for (int64_t position = 0; position < p.positions; ++position) {
        for (int i = 0; i < work.pairs; ++i) {
          Pair dy = work.read_moved(work.pixel(p.grad_out, position), i);
          if (p.grad_shortcut) {
            const Pair out = work.read_moved(work.pixel(p.out, position), i);
            dy = {out.a <= 0.0f ? Lanes{} : dy.a, out.b <= 0.0f ? Lanes{} : dy.b};
            work.write_moved(work.pixel(p.grad_shortcut, position), i, dy);
          }
          const Numbers &a = numbers[i].a, &b = numbers[i].b;
          const Pair v = work.read(work.pixel(p.x, position), i);
          const Lanes gate_a = a.gate(v.a), gate_b = b.gate(v.b), gated_a = dy.a * gate_a, gated_b = dy.b * gate_b;
          const Lanes through_a = a.through_gate(gated_a, gate_a, v.a);
          const Lanes through_b = b.through_gate(gated_b, gate_b, v.b);
          d[i].add(through_a, through_b);
          dx[i].add(through_a * (v.a - a.centre), through_b * (v.b - b.centre));
          y[i].add(gated_a, gated_b);
          yx[i].add(gated_a * (v.a - a.centre), gated_b * (v.b - b.centre));
        }
        if (ends_run(position))
          for (int i = 0; i < work.pairs; ++i)
            for (Accumulator* sums : {&d[i], &dx[i], &y[i], &yx[i]}) sums->flush();
      }
      PairGradients gradients[kPairs];
      for (int i = 0; i < work.pairs; ++i)
        for (int half = 0; half < work.halves(i); ++half) {
          const Sums sums{d[i].lanes(half), dx[i].lanes(half), y[i].lanes(half), yx[i].lanes(half)};
          const Numbers& n = half ? numbers[i].b : numbers[i].a;
          Gradients& g = half ? gradients[i].b : gradients[i].a;
          g = use(work.row(i, half * kLanes), work.channel(i, half * kLanes), work.lanes(i, half), n, sums);
        }
      if (write) write_gradients(work, numbers, gradients);
    });
  }

  void write_gradients(const PerRow& c0, const PerRow& c1, const PerRow& c2) const {
    each([&](const Work& work) {
      PairNumbers numbers[kPairs];
      PairGradients gradients[kPairs];
      fill(work, numbers);
      for (int i = 0; i < work.pairs; ++i)
        for (int half = 0; half < work.halves(i); ++half) {
          const int64_t row = work.row(i, half * kLanes);
          Gradients& g = half ? gradients[i].b : gradients[i].a;
          g.c0 = c0.at(row);
          g.c1 = c1.at(row);
          g.c2 = c2.at(row);
        }
      write_gradients(work, numbers, gradients);
    });
  }

  float first_of(int64_t row) const {
    const int64_t image = row / p.channels, channel = row % p.channels;
    return first(static_cast<const T*>(p.x) + image * p.positions * p.channels + channel);
  }

 private:
  template <class Body>
  void each(Body body) const {
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t number = 0; number < p.images * shares; ++number)
      body(Work(p, channels.moved.data(), number / shares, number % shares));
  }

  static Lanes relu(Lanes y) { return y < 0.0f ? Lanes{} : y; }
  bool ends_run(int64_t position) const { return position % kFlush == kFlush - 1 || position == p.positions - 1; }

  void fill(const Work& work, PairNumbers* numbers) const {
    for (int i = 0; i < work.pairs; ++i) {
      Pair first = work.read(work.pixel(p.x, 0), i);
      for (int half = 0; half < work.halves(i); ++half) {
        const int64_t row = work.row(i, half * kLanes);
        const int count = work.lanes(i, half);
        const Lanes offset = load_some(p.offset(row), count), variance = load_some(p.variance(row), count);
        (half ? numbers[i].b : numbers[i].a) =
            Numbers(p, channels, work.channel(i, half * kLanes), half ? first.b : first.a, offset, variance);
      }
    }
  }

  void write_gradients(const Work& work, const PairNumbers* numbers, const PairGradients* gradients) const {
    const void* grad = p.grad_shortcut ? p.grad_shortcut : p.grad_out;
    for (int64_t position = 0; position < p.positions; ++position)
      for (int i = 0; i < work.pairs; ++i) {
        const Pair dy = work.read_moved(work.pixel(grad, position), i), x = work.read(work.pixel(p.x, position), i);
        work.write(work.pixel(p.grad_x, position), i,
                   {gradient(numbers[i].a, gradients[i].a, x.a, dy.a),
                    gradient(numbers[i].b, gradients[i].b, x.b, dy.b)});
      }
  }

  void measure(const Work& work, bool of_all_branches) const {
    const double n = double(p.positions);
    Pair first[kPairs], centre[kPairs];
    for (int i = 0; i < work.pairs; ++i) {
      first[i] = centre[i] = work.read(work.pixel(p.x, 0), i);
      for (int lane = 0; lane < work.lanes(i); ++lane)
        *p.offset(work.row(i, lane)) = *p.variance(work.row(i, lane)) = 0;
    }
    if (!of_all_branches && !channels.any_measured) return;
    bool far[kPairs][kPairLanes] = {}, any_far = false;  // first values that are far from all others: no good centres
    for (int pass = 0; pass < 2 && (pass == 0 || any_far); ++pass) {
      Accumulator sums[kPairs], squares[kPairs];
      add_up(work, centre, sums, squares);
      for (int i = 0; i < work.pairs; ++i)
        for (int lane = 0; lane < work.lanes(i); ++lane) {
          if (pass && !far[i][lane]) continue;
          const double distance = sums[i].total[lane] / n, mean = lane_of(centre[i], lane) + distance;
          const double variance = std::max(0.0, squares[i].total[lane] / n - distance * distance);
          far[i][lane] |= distance * distance > 16 * variance;
          any_far |= far[i][lane];
          const Kept kept(mean, lane_of(first[i], lane), variance, far[i][lane]);
          *p.offset(work.row(i, lane)) = kept.offset;
          *p.variance(work.row(i, lane)) = kept.variance;
          lane_of(centre[i], lane) = float(mean);
        }
    }
  }

  void add_up(const Work& work, const Pair* centre, Accumulator* sums, Accumulator* squares) const {
    for (int64_t position = 0; position < p.positions; ++position) {
      const T* pixel = work.pixel(p.x, position);
      for (int i = 0; i < work.pairs; ++i) {
        const Pair x = work.read(pixel, i);
        const Lanes a = x.a - centre[i].a, b = x.b - centre[i].b;
        sums[i].add(a, b);
        squares[i].add(a * a, b * b);
      }
      if (ends_run(position))
        for (int i = 0; i < work.pairs; ++i) {
          sums[i].flush();
          squares[i].flush();
        }
    }
  }

  const Problem& p;
  const Channels& channels;
  const int64_t shares;
};
