// Pairs of vectors, which the shuffle interleaves, and their constants during a loop. These are copies, because the
// compiler must assume that stores may change values in memory.
#pragma once

#include "problem.h"

constexpr int kPairLanes = 2 * kLanes;

struct Pair {
  Lanes a, b;
};

struct PairGate {
  Gate a, b;
};

// Functions from the values of a pair to its gates. Constant gates:
struct ConstantGates {
  PairGate gates;
  INLINED PairGate operator()(Pair) const { return gates; }
};

// Gates computed from each value:
struct ValueGates {
  Line a, b;
  Mask passed_a, passed_b;

  INLINED PairGate operator()(Pair v) const {
    return {through_passed(passed_a, gate_of(a(v.a))), through_passed(passed_b, gate_of(b(v.b)))};
  }
};

// For branches that alternate within vectors: one vector holds the values of both vectors that have a spatial gate.
struct PackedGates {
  Mask selected, swapped;
  PairGate others;
  Line line;

  INLINED PairGate operator()(Pair v) const {
    const Gate gate = gate_of(line(packed(v.a, v.b)));
    const Lanes open = permute(gate.open, swapped), closed = permute(gate.closed, swapped);
    return {{select(selected, open, others.a.open), select(selected, closed, others.a.closed)},
            {select(selected, gate.open, others.b.open), select(selected, gate.closed, others.b.closed)}};
  }
  INLINED Lanes packed(Lanes a, Lanes b) const { return select(selected, b, permute(a, swapped)); }
};

// Other constants of a vector.
template <bool kNormed>
struct Constants {
  Lanes origin, scale, shift, centre;
  Mask passed;

  INLINED explicit Constants(const Numbers& n)
      : origin(n.origin), scale(n.scale), shift(n.shift), centre(n.centre), passed(n.passed) {}
  INLINED Lanes normed(Lanes x) const { return kNormed ? (x - origin) * scale + shift : x; }
  // The gradient through the gate.
  INLINED Lanes through_gate(Lanes gated, Lanes x, Gate gate) const {
    return select(passed, Lanes{}, gated * normed(x) * gate.closed);
  }
};

// Coefficients that give the gradient of x.
struct Slope {
  Lanes c0, c1, c2;
  Mask no_c2;
  INLINED explicit Slope(const Gradients& g) : c0(g.c0), c1(g.c1), c2(g.c2), no_c2(g.c2 == 0.0f) {}
};

// A sum per lane.
struct Total {
  Lanes recent{};
  double values[kLanes] = {};

  void flush() {
    float added[kLanes];
    store(added, recent);
    for (int lane = 0; lane < kLanes; ++lane) values[lane] += added[lane];
    recent = Lanes{};
  }
  Lanes lanes() const {
    float lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = float(values[lane]);
    return load(lanes);
  }
};

struct Totals {
  Total of[4];
};

// Running sums of `Sums`.
template <bool kNormed>
struct Running {
  Lanes d, dx, y, yx;

  explicit Running(const Total* of) : d(of[0].recent), dx(of[1].recent), y(of[2].recent), yx(of[3].recent) {}
  INLINED void add(const Constants<kNormed>& constants, Lanes x, Lanes dy, Gate gate) {
    const Lanes gated = dy * gate.open, centred = x - constants.centre;
    const Lanes through = constants.through_gate(gated, x, gate);
    d += through;
    dx += through * centred;
    if (!kNormed) return;
    y += gated;
    yx += gated * centred;
  }
  void keep(Total* of) const {
    of[0].recent = d;
    of[1].recent = dx;
    of[2].recent = y;
    of[3].recent = yx;
  }
};

