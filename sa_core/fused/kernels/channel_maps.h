// Maps in channels_last: (images, positions, channels).
#pragma once

#include "slabs.h"

constexpr int64_t kFlush = 256;  // positions that are summed in float before they are added to a double

template <class T, bool kNormed, Order kOrder>
class ChannelMaps : public Slabs<T, kOrder> {
  using Base = Slabs<T, kOrder>;
  using Slab = ::Slab<T>;
  using View = ::View<T>;

 public:
  ChannelMaps(const Problem& problem, const Channels& channels) : Base(problem, channels) {
    // Whether branches alternate within vectors, in the same way in both vectors of a pair.
    const int64_t period = p.group_channels;
    const int64_t run = kOrder == kFolded ? kLanes / 2 : kOrder == kInterleaved ? width / 2 : kLanes;
    const bool takes_turns = p.channel_gate && p.spatial_gate != kNoSpatial && 2 * p.split == period &&
                             (period & (period - 1)) == 0 && period <= kLanes && run % period == 0;
    packed = takes_turns && kOrder != kScattered ? int(p.split) : 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      swapped[lane] = lane ^ packed;
      selected[lane] = lane & packed ? -1 : 0;
    }
  }

  void statistics(bool of_all_branches) const {
    each([&](Slab& slab) { measure(slab, of_all_branches); });
  }

  void forward(bool measured) const {
    each([&](Slab& slab) {
      if (!measured) measure(slab, false);
      fill(slab);
      each_block([&](int64_t at, int count) {
        const View x = source(slab, p.x, at, count, 0), shortcut = moved_source(slab, p.shortcut, at, count, 1);
        const View out = moved_target(slab, p.out, at, 2);
        const bool joined = p.shortcut, past_cache = Base::streams_moved;
        for (int i = 0; i < slab.pairs; ++i) {
          const Place here = place(slab, i);
          const Constants<kNormed> a(slab.numbers[2 * i]), b(slab.numbers[2 * i + 1]);
          with_gates(slab, i, [&](auto gate_of) INLINED {
            for (int k = 0; k < count; ++k) {
              const Pair v = read(x[k], here);
              const PairGate gate = gate_of(v);
              Pair y = {a.normed(v.a) * gate.a.open, b.normed(v.b) * gate.b.open};
              if (joined) {
                const Pair added = read_moved(shortcut[k], here);
                y = {relu(y.a + added.a), relu(y.b + added.b)};
              }
              write_moved(out[k], here, y, past_cache);
            }
          });
        }
        deliver_moved(slab, out, p.out, at, count);
      });
    });
  }

  // Calls use(row, channel, count, numbers, sums) for vectors of rows, and writes their gradients if `write`.
  template <class Use>
  void backward(Use use, bool write) const {
    each([&](Slab& slab) {
      fill(slab);
      sum_up(slab);
      for (int j = 0; j < vectors(slab); ++j) {
        const Total* of = slab.totals[j].of;
        const Sums sums{of[0].lanes(), of[1].lanes(), of[2].lanes(), of[3].lanes()};
        put(use(row(slab, j), channel(slab, j), lanes(slab, j), numbers_of(slab, j), sums), slab.gradients, j);
      }
      if (write) write_gradients(slab);
    });
  }

  void write_gradients(const PerRow& c0, const PerRow& c1, const PerRow& c2) const {
    each([&](Slab& slab) {
      fill(slab);
      for (int j = 0; j < vectors(slab); ++j) {
        Gradients g;
        g.c0 = c0.at(row(slab, j));
        g.c1 = c1.at(row(slab, j));
        g.c2 = c2.at(row(slab, j));
        put(g, slab.gradients, j);
      }
      write_gradients(slab);
    });
  }

  float first_of(int64_t row) const {
    const int64_t image = row / p.channels, channel = row % p.channels;
    return first(static_cast<const T*>(p.x) + image * p.positions * p.channels + channel);
  }

 private:
  using Base::p, Base::channels, Base::width, Base::pixels, Base::block;
  using Base::each, Base::each_block, Base::vectors, Base::channel, Base::lanes, Base::row, Base::put, Base::unfold;
  using Base::source, Base::moved_source, Base::target, Base::moved_target, Base::deliver, Base::deliver_moved;
  using Base::place, Base::read, Base::write, Base::read_moved, Base::write_moved, Base::fetch, Base::fetch_moved;

  INLINED static Lanes relu(Lanes y) { return y < 0.0f ? Lanes{} : y; }

  Lanes first_of(const Slab& slab, int vector) const {
    const T* pixel = static_cast<const T*>(p.x) + slab.image * p.positions * p.channels;
    T values[kLanes] = {};
    memcpy(values, pixel + channel(slab, vector), lanes(slab, vector) * sizeof(T));
    return load(values);
  }
  Numbers numbers_of(const Slab& slab, int vector) const {
    const int64_t row = this->row(slab, vector);
    const int count = lanes(slab, vector);
    const Lanes offset = load_some(p.offset(row), count), variance = load_some(p.variance(row), count);
    return Numbers(p, channels, channel(slab, vector), first_of(slab, vector), offset, variance);
  }

  void fill(Slab& slab) const {
    for (int j = 0; j < vectors(slab); ++j) put(numbers_of(slab, j), slab.numbers, j);
    for (int i = 0; i < slab.pairs; ++i) {
      const Numbers &a = slab.numbers[2 * i], &b = slab.numbers[2 * i + 1];
      slab.is_constant[i] = !any((a.slope != 0.0f) | (b.slope != 0.0f));
      if (!packed) continue;
      const PackedGates pack{selected, swapped};
      slab.packed[i] = {pack.packed(a.centre, b.centre), pack.packed(a.slope, b.slope), pack.packed(a.level, b.level)};
    }
  }

  // Calls body(gate_of), where gate_of(values) returns the gates of a pair.
  template <class Body>
  INLINED void with_gates(const Slab& slab, int pair, Body body) const {
    const Numbers &a = slab.numbers[2 * pair], &b = slab.numbers[2 * pair + 1];
    if (slab.is_constant[pair]) return body(ConstantGates{a.constant, b.constant});
    if constexpr (kOrder != kScattered)
      if (packed) return body(PackedGates{selected, swapped, {a.constant, b.constant}, slab.packed[pair]});
    body(ValueGates{a.line(), b.line(), a.passed, b.passed});
  }

  void clear(Slab& slab) const {
    for (Totals& totals : slab.totals) totals = Totals();
  }
  void flush(Slab& slab, int64_t end, int count, int sums) const {
    if (end / kFlush == (end - count) / kFlush && end != pixels) return;
    for (int j = 0; j < 2 * slab.pairs; ++j)
      for (int sum = 0; sum < sums; ++sum) slab.totals[j].of[sum].flush();
    if (end == pixels) unfold(slab);
  }

  void measure(Slab& slab, bool of_all_branches) const {
    for (int j = 0; j < vectors(slab); ++j) {
      store_some(p.offset(row(slab, j)), Lanes{}, lanes(slab, j));
      store_some(p.variance(row(slab, j)), Lanes{}, lanes(slab, j));
      put(first_of(slab, j), slab.centres, j);
    }
    if (!of_all_branches && !channels.any_measured) return;
    add_up(slab);
    bool any_far = false;
    for (int j = 0; j < vectors(slab); ++j) any_far |= keep(slab, j, false);
    if (!any_far) return;
    // Outliers as first values are bad centres; the means computed with them are good ones.
    for (int j = 0; j < vectors(slab); ++j) put(numbers_of(slab, j).centre, slab.centres, j);
    add_up(slab);
    for (int j = 0; j < vectors(slab); ++j) keep(slab, j, true);
  }

  // Stores mean and variance of channels, with `again` only of those with a better centre. Returns whether any channel
  // has a bad centre.
  bool keep(const Slab& slab, int vector, bool again) const {
    const double *sums = slab.totals[vector].of[0].values, *squares = slab.totals[vector].of[1].values;
    const double n = double(p.positions);
    double distance[kLanes], variance[kLanes];
    bool any_far = again;
    for (int lane = 0; lane < kLanes; ++lane) {
      distance[lane] = sums[lane] / n;
      variance[lane] = squares[lane] / n - distance[lane] * distance[lane];
      variance[lane] = variance[lane] > 0 ? variance[lane] : 0;
      any_far |= distance[lane] * distance[lane] > 16 * variance[lane];
    }
    const Lanes first = first_of(slab, vector), centre = again ? numbers_of(slab, vector).centre : first;
    float *offsets = p.offset(row(slab, vector)), *variances = p.variance(row(slab, vector));
    for (int lane = 0; lane < lanes(slab, vector); ++lane) {
      const bool far = again ? variances[lane] < 0 : distance[lane] * distance[lane] > 16 * variance[lane];
      if (again && !far) continue;
      const Kept kept(centre[lane] + distance[lane], first[lane], variance[lane], far);
      offsets[lane] = kept.offset;
      variances[lane] = kept.variance;
    }
    return any_far;
  }

  void add_up(Slab& slab) const {
    clear(slab);
    each_block([&](int64_t at, int count) {
      const View x = source(slab, p.x, at, count, 0);
      for (int i = 0; i < slab.pairs; ++i) {
        const Place here = place(slab, i);
        Total *a = slab.totals[2 * i].of, *b = slab.totals[2 * i + 1].of;
        const Pair centre = {slab.centres[2 * i], slab.centres[2 * i + 1]};
        Pair sum = {a[0].recent, b[0].recent}, square = {a[1].recent, b[1].recent};
        for (int k = 0; k < count; ++k) {
          fetch(x[k + block], here);
          Pair v = read(x[k], here);
          v = {v.a - centre.a, v.b - centre.b};
          sum = {sum.a + v.a, sum.b + v.b};
          square = {square.a + v.a * v.a, square.b + v.b * v.b};
        }
        a[0].recent = sum.a, b[0].recent = sum.b;
        a[1].recent = square.a, b[1].recent = square.b;
      }
      flush(slab, at + count, count, 2);
    });
  }

  // If the block ends in a ReLU, also writes the gradient before it.
  void sum_up(Slab& slab) const {
    clear(slab);
    each_block([&](int64_t at, int count) {
      const View x = source(slab, p.x, at, count, 0), grad_out = moved_source(slab, p.grad_out, at, count, 1);
      const bool joined = p.grad_shortcut;
      const View out = moved_source(slab, joined ? p.out : nullptr, at, count, 2);
      const View passed = moved_target(slab, p.grad_shortcut, at, 3);
      for (int i = 0; i < slab.pairs; ++i) {
        const Place here = place(slab, i);
        const Constants<kNormed> a(slab.numbers[2 * i]), b(slab.numbers[2 * i + 1]);
        Total *of_a = slab.totals[2 * i].of, *of_b = slab.totals[2 * i + 1].of;
        with_gates(slab, i, [&](auto gate_of) INLINED {
          Running<kNormed> sums_a(of_a), sums_b(of_b);
          for (int k = 0; k < count; ++k) {
            fetch_moved(grad_out[k + block], here);
            fetch(x[k + block], here);
            Pair dy = read_moved(grad_out[k], here);
            if (joined) {
              const Pair y = read_moved(out[k], here);
              dy = {y.a <= 0.0f ? Lanes{} : dy.a, y.b <= 0.0f ? Lanes{} : dy.b};
              write_moved(passed[k], here, dy, false);
            }
            const Pair v = read(x[k], here);
            const PairGate gate = gate_of(v);
            sums_a.add(a, v.a, dy.a, gate.a);
            sums_b.add(b, v.b, dy.b, gate.b);
          }
          sums_a.keep(of_a);
          sums_b.keep(of_b);
        });
      }
      if (joined) deliver_moved(slab, passed, p.grad_shortcut, at, count);
      flush(slab, at + count, count, kNormed ? 4 : 2);
    });
  }

  void write_gradients(Slab& slab) const {
    const void* grad = p.grad_shortcut ? p.grad_shortcut : p.grad_out;
    each_block([&](int64_t at, int count) {
      const View x = source(slab, p.x, at, count, 0), dy = moved_source(slab, grad, at, count, 1);
      const View grad_x = target(slab, p.grad_x, at, 2);
      const bool past_cache = Base::streams;
      for (int i = 0; i < slab.pairs; ++i) {
        const Place here = place(slab, i);
        const Constants<kNormed> a(slab.numbers[2 * i]), b(slab.numbers[2 * i + 1]);
        const Slope to_a(slab.gradients[2 * i]), to_b(slab.gradients[2 * i + 1]);
        with_gates(slab, i, [&](auto gate_of) INLINED {
          for (int k = 0; k < count; ++k) {
            const Pair v = read(x[k], here), d = read_moved(dy[k], here);
            const PairGate gate = gate_of(v);
            const Pair g = {gradient(a, to_a, v.a, d.a, gate.a), gradient(b, to_b, v.b, d.b, gate.b)};
            write(grad_x[k], here, g, past_cache);
          }
        });
      }
      deliver(slab, grad_x, p.grad_x, at, count);
    });
  }

  INLINED static Lanes gradient(const Constants<kNormed>& constants, const Slope& slope, Lanes x, Lanes dy, Gate gate) {
    const Lanes gated = dy * gate.open, linear = (x - constants.centre) * slope.c2 + slope.c0;
    const Lanes through = constants.through_gate(gated, x, gate) * slope.c1;
    return (gated + through + select(slope.no_c2, slope.c0, linear)) * constants.scale;
  }

  int packed;              // channels of a branch if branches alternate within vectors, otherwise 0
  Mask swapped, selected;  // in that case the lanes to swap, and those with a spatial gate
};
