// The problem to compute, and the constants of each row.
//
// A row is a channel of an image: positions x with mean m and variance v. For each position,
//
//     u = scale (x - origin) + shift           the batch norm; without one, u = x
//     t = slope (x - m) + level                F_c of the pooled or the normalized row; constant in the channel branch
//     y = u sigmoid(t)
//     out[row after the shuffle] = relu(y + shortcut)        or y
//
// With dy the gradient of y, s = sigmoid(t) and D = dy u s (1 - s), the gradient of every branch has the form
//
//     du = dy s + c1 D + c2 (x - m) + c0
//
// where c0 and c2 follow from the sums over the row of D and D (x - m). A batch norm in training only changes these.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "lanes.h"

enum SpatialGate { kNoSpatial, kInstance, kPlain };
enum Norm { kNoNorm, kRunning, kBatch };  // the batch norm before the gates: none, by running or by batch statistics
enum Dtype { kFloat, kBFloat16, kHalf };

// `_PROBLEM` of cpu.py has the same fields. Maps are (images, channels, positions), or (images, positions, channels) if
// `channels_last`; out, shortcut and their gradients have the channel order after the shuffle.
struct Problem {
  int64_t images, channels, positions;
  int64_t group_channels, split;  // channels per group, and channels of a group before its spatial branch
  int64_t shuffle_groups;         // channel blocks that the shuffle interleaves; 1 for no shuffle
  int64_t channel_gate, spatial_gate, norm, dtype, channels_last, threads;
  const int64_t* permutation;  // input channel of each output channel; null interleaves `shuffle_groups` blocks
  // Parameters of a branch, one value per channel of the branch in a group; null is a weight of 1 or a bias of 0.
  const float *cweight, *cbias, *sweight, *sbias, *gn_weight, *gn_bias;
  const float *bn_weight, *bn_bias;  // of the batch norm, one value per channel
  double gn_epsilon, bn_epsilon;
  float* rows;     // (2, images, places): mean of the row minus its first value, and variance; or, if the first value
                   // is an outlier, mean and negative variance; null if not needed for backward
  float* moments;  // (3, channels), of the batch norm: mean, variance, and rounding error of the mean
  const void *x, *shortcut;
  void* out;
  // For backward only; grad_gates is (6, channels of the wider branch), in the order of the parameters above.
  const void* grad_out;
  void *grad_x, *grad_shortcut;
  float *grad_gates, *grad_bn;

  float* offset(int64_t row) const { return rows + row; }
  float* variance(int64_t row) const { return rows + images * channels + row; }
  float& bn_mean(int64_t channel) const { return moments[channel]; }
  float& bn_variance(int64_t channel) const { return moments[channels + channel]; }
  float& bn_residue(int64_t channel) const { return moments[2 * channels + channel]; }
};

// One value per place in an image. The first values are repeated after the last, so that kLanes consecutive values can
// be loaded from any place, also across the border between two images.
class PerPlace {
 public:
  explicit PerPlace(int64_t places, float value = 0) : places(places), values(places + kLanes, value) {}
  void set(int64_t place, float value) {
    for (int64_t i = place; i < places + kLanes; i += places) values[i] = value;
  }
  Lanes operator()(int64_t place) const { return load(&values[place]); }

 private:
  int64_t places;
  std::vector<float> values;
};

// The input channel of each output channel of the shuffle.
inline std::vector<int64_t> shuffled(const Problem& p) {
  std::vector<int64_t> source(p.channels);
  const int64_t size = p.channels / p.shuffle_groups;
  for (int64_t block = 0; block < p.shuffle_groups; ++block)
    for (int64_t i = 0; i < size; ++i) source[i * p.shuffle_groups + block] = block * size + i;
  if (p.permutation) source.assign(p.permutation, p.permutation + p.channels);
  return source;
}

// Whether every channel occurs once.
inline bool is_permutation(const Problem& p) {
  std::vector<bool> seen(p.channels);
  for (const int64_t channel : shuffled(p)) {
    if (channel < 0 || channel >= p.channels || seen[channel]) return false;
    seen[channel] = true;
  }
  return true;
}

// The identity permutation.
inline std::vector<int64_t> as_they_are(const Problem& p) {
  std::vector<int64_t> channels(p.channels);
  for (int64_t i = 0; i < p.channels; ++i) channels[i] = i;
  return channels;
}

// Statistics of a row as stored in `rows`: the mean is `offset` plus the first value, or `offset` if `far`.
struct Kept {
  float offset, variance;

  // `far`: the first value is not used as centre, as it is an outlier and differences to it would cancel.
  Kept(double mean, double first, double spread, bool far)
      : offset(float(far ? mean : mean - first)), variance(float(far ? -spread : spread)) {}
};

inline double mean_of(const Problem& p, int64_t row, float first) {
  return (*p.variance(row) < 0 ? 0.0 : double(first)) + *p.offset(row);
}

// Constants of channels for all images, in processing order: one channel per place.
struct Channels {
  std::vector<int64_t> at;     // channel of each place
  std::vector<int64_t> moved;  // its output channel after the shuffle
  PerPlace weight, bias;  // of F_c, including the affine parameters of the instance norm
  PerPlace is_passed, is_channel, is_instance, is_plain;  // kind of its gate: 1 or 0
  PerPlace scale, origin, residue, shift;  // of the batch norm; its mean is origin + residue
  bool any_measured;  // whether any gate needs statistics of its row

  Channels(const Problem& p, std::vector<int64_t> order)
      : at(std::move(order)), moved(p.channels), weight(p.channels), bias(p.channels, 100),  // sigmoid(100) = 1
        is_passed(p.channels), is_channel(p.channels), is_instance(p.channels), is_plain(p.channels),
        scale(p.channels, 1), origin(p.channels), residue(p.channels), shift(p.channels),
        any_measured(p.channel_gate || p.spatial_gate != kNoSpatial) {
    const auto or_one = [](const float* values, int64_t i) { return values ? values[i] : 1.0f; };
    const auto or_zero = [](const float* values, int64_t i) { return values ? values[i] : 0.0f; };
    const std::vector<int64_t> source = shuffled(p);
    std::vector<int64_t> destination(p.channels);
    for (int64_t to = 0; to < p.channels; ++to) destination[source[to]] = to;
    for (int64_t i = 0; i < p.channels; ++i) {
      moved[i] = destination[at[i]];
      const int64_t within = at[i] % p.group_channels;
      const bool spatial = within >= p.split;
      const int64_t k = spatial ? within - p.split : within;
      if (!spatial && p.channel_gate) {
        is_channel.set(i, 1);
        weight.set(i, or_one(p.cweight, k));
        bias.set(i, or_zero(p.cbias, k));
      } else if (spatial && p.spatial_gate == kInstance) {
        is_instance.set(i, 1);
        weight.set(i, or_one(p.sweight, k) * or_one(p.gn_weight, k));
        bias.set(i, or_one(p.sweight, k) * or_zero(p.gn_bias, k) + or_zero(p.sbias, k));
      } else if (spatial && p.spatial_gate == kPlain) {
        is_plain.set(i, 1);
        weight.set(i, or_one(p.sweight, k));
        bias.set(i, or_zero(p.sbias, k));
      } else {
        is_passed.set(i, 1);
      }
    }
    if (p.norm == kRunning || (p.norm == kBatch && p.grad_out)) set_norm(p);
  }

  // Sets the constants of the batch norm from its moments.
  void set_norm(const Problem& p) {
    for (int64_t i = 0; i < p.channels; ++i) {
      const int64_t c = at[i];
      const float factor = (p.bn_weight ? p.bn_weight[c] : 1.0f) / std::sqrt(p.bn_variance(c) + float(p.bn_epsilon));
      scale.set(i, factor);
      origin.set(i, p.bn_mean(c));
      residue.set(i, p.bn_residue(c));
      shift.set(i, (p.bn_bias ? p.bn_bias[c] : 0.0f) - factor * p.bn_residue(c));
    }
  }
};

// A straight line through (centre, level).
struct Line {
  Lanes centre, slope, level;
  INLINED Lanes operator()(Lanes x) const { return (x - centre) * slope + level; }
};

// Gates, with open = 1 for rows without a gate.
INLINE Gate through_passed(Mask passed, Gate gate) {
  return {select(passed, splat(1.0f), gate.open), select(passed, Lanes{}, gate.closed)};
}

// The constants of kLanes rows at consecutive places. A row is centred on a float near its mean, so that x - centre is
// exact if values are large and close together; constants of the row correct for `residue`, the mean minus the centre.
struct Numbers {
  Lanes scale, origin, shift;
  Lanes centre, residue;
  Lanes mean;          // of u
  Lanes slope, level;  // of t as a function of x - centre, times kToPowersOfTwo
  Lanes inverse_deviation;
  Mask passed;    // rows without a gate, also if they contain NaN
  Mask bounded;   // rows in which |t| <= kReach for all values
  Gate constant;  // of rows whose slope is 0

  Numbers() = default;
  Numbers(const Problem& p, const Channels& c, int64_t place, Lanes first, Lanes offset, Lanes variance)
      : scale(c.scale(place)), origin(c.origin(place)), shift(c.shift(place)) {
    first = select(variance < 0.0f, Lanes{}, first);
    variance = variance < 0.0f ? -variance : variance;
    centre = first + offset;
    const Lanes kept = centre - first;
    residue = (first - (centre - kept)) + (offset - kept);
    mean = scale * ((centre - origin) + residue) + shift;
    inverse_deviation = 1.0f / square_root(scale * scale * variance + float(p.gn_epsilon));
    const Mask instance = c.is_instance(place) != 0.0f, plain = c.is_plain(place) != 0.0f;
    const Lanes weight = c.weight(place), none{};
    passed = c.is_passed(place) != 0.0f;
    slope = select(passed, none, weight * scale * select(instance, inverse_deviation, c.is_plain(place)));
    level = c.bias(place) + select((c.is_channel(place) != 0.0f) | plain, weight * mean, none);
    level -= select(passed, none, slope * residue);
    slope *= kToPowersOfTwo;
    level *= kToPowersOfTwo;
    // None of n values is more than sqrt(n) standard deviations from their mean (Samuelson 1968). A margin of 5 %
    // covers rounding errors of the variance and of t.
    const Lanes rest = 0.95f * kReach - (level < 0.0f ? -level : level);
    bounded = (rest > 0.0f) & (slope * slope * (variance * float(p.positions)) < rest * rest);
    constant = through_passed(passed, gate_of(level));
  }

  Line line() const { return {centre, slope, level}; }
};

// Sums over each of kLanes rows of D, D (x - centre), dy s and dy s (x - centre).
struct Sums {
  Lanes d{}, dx{}, y{}, yx{};
};

// Coefficients of the gradient that follow from the sums; c2 is the factor of x - centre.
struct Gradients {
  Lanes c0{}, c1{}, c2{};
  Lanes weight{}, bias{};  // contributions of the rows to the gradients of weight and bias of F_c
  Lanes u{}, ux{};         // sums over the rows of du and du (x - mean of the channel)

  // c1, which needs no sums. With a single position the output of an instance norm is 0, and so is its gradient.
  static Lanes through_gate(const Problem& p, const Channels& c, int64_t place, const Numbers& row) {
    const Mask instance = c.is_instance(place) != 0.0f, plain = c.is_plain(place) != 0.0f;
    const Lanes w = c.weight(place), none{};
    return select(instance, p.positions == 1 ? none : row.inverse_deviation * w, select(plain, w, none));
  }

  Gradients() = default;
  Gradients(const Problem& p, const Channels& c, int64_t place, const Numbers& row, const Sums& sums) {
    const Lanes dx = sums.dx - sums.d * row.residue, yx = sums.yx - sums.y * row.residue;
    const Lanes n = splat(float(p.positions)), none{}, w = c.weight(place), r = row.inverse_deviation;
    const Mask instance = c.is_instance(place) != 0.0f, plain = c.is_plain(place) != 0.0f;
    const Mask pooled = c.is_channel(place) != 0.0f;
    c1 = through_gate(p, c, place, row);
    c2 = select(instance, -(r * row.scale) * (r * row.scale) * c1 * dx / n, none);
    c0 = select(instance, -c1 * sums.d / n - c2 * row.residue, select(pooled, w * sums.d / n, none));
    weight = select(instance, row.scale * r * dx,
                    select(pooled, sums.d * row.mean, select(plain, row.scale * dx + row.mean * sums.d, none)));
    bias = select(instance | pooled | plain, sums.d, none);
    // c1, c2 and c0 cancel in the sums of an instance norm, except for its epsilon.
    u = sums.y + select(instance, none, w * sums.d);
    ux = yx + c1 * dx * select(instance, r * r * float(p.gn_epsilon), splat(1.0f));
    ux += ((row.centre - row.origin) + (row.residue - c.residue(place))) * u;
  }
};

// One value per row, (images, places), with padding of kLanes at the end.
class PerRow {
 public:
  explicit PerRow(int64_t rows) : values(rows ? rows + kLanes : 0) {}
  Lanes at(int64_t row) const { return load(&values[row]); }
  void set(int64_t row, Lanes lanes, int count) { store_some(&values[row], lanes, count); }
  float& operator[](int64_t row) { return values[row]; }

 private:
  std::vector<float> values;
};
