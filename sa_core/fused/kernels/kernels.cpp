// Shuffle attention between a batch norm and an addition, forward and backward, for feature maps on a CPU.
//
// problem.h defines the computation. A row is read for its statistics and again, from the cache, for its result; only a
// batch norm in training needs the statistics of all images before the first result. Backward works in the same way.
// The shuffle only changes the addresses of results.
//
// The library depends only on OpenMP; `cpu.py` fills a Problem and calls it.

#include <memory>

#include "channel_maps.h"
#include "row_maps.h"

namespace {

// Mean and variance of each channel over all images, from those of its rows: var = mean(v + (m - mean)^2).
template <class Maps>
void batch_statistics(const Problem& p, const Channels& channels, const Maps& maps) {
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t place = 0; place < p.channels; ++place) {
    const int64_t channel = channels.at[place], rows = p.images * p.channels;
    const auto row_mean = [&](int64_t row) { return mean_of(p, row, maps.first_of(row - place + channel)); };
    double mean = 0, variance = 0;
    for (int64_t row = place; row < rows; row += p.channels) mean += row_mean(row);
    mean /= double(p.images);
    for (int64_t row = place; row < rows; row += p.channels) {
      const double distance = row_mean(row) - mean;
      variance += std::abs(*p.variance(row)) + distance * distance;
    }
    p.bn_mean(channel) = float(mean);
    p.bn_residue(channel) = float(mean - double(p.bn_mean(channel)));
    p.bn_variance(channel) = float(variance / double(p.images));
  }
}

template <class Maps>
void forward(const Problem& p, Channels& channels, const Maps& maps) {
  if (p.norm == kBatch) {
    maps.statistics(true);
    batch_statistics(p, channels, maps);
    channels.set_norm(p);
  }
  maps.forward(p.norm == kBatch);
}

// Sums the contributions of rows to the gradients of the gates over images and groups, which share the parameters.
void gate_gradients(const Problem& p, const Channels& channels, PerRow& weight, PerRow& bias) {
  const int64_t width = std::max(p.split, p.group_channels - p.split);
  std::vector<double> weights(p.group_channels), biases(p.group_channels), by_place(2 * p.channels);
  for (int64_t image = 0; image < p.images; ++image)
    for (int64_t place = 0; place < p.channels; ++place) {
      by_place[place] += weight[image * p.channels + place];
      by_place[p.channels + place] += bias[image * p.channels + place];
    }
  for (int64_t place = 0; place < p.channels; ++place) {
    weights[channels.at[place] % p.group_channels] += by_place[place];
    biases[channels.at[place] % p.group_channels] += by_place[p.channels + place];
  }
  for (int64_t within = 0; within < p.group_channels; ++within) {
    const double w = weights[within], b = biases[within];
    const bool spatial = within >= p.split;
    const int64_t i = spatial ? within - p.split : within;
    float* grad = p.grad_gates + i;
    if (spatial && p.spatial_gate == kInstance) {
      grad[2 * width] = float(w * (p.gn_weight ? p.gn_weight[i] : 1) + b * (p.gn_bias ? p.gn_bias[i] : 0));
      grad[3 * width] = float(b);
      grad[4 * width] = float(w * (p.sweight ? p.sweight[i] : 1));
      grad[5 * width] = float(b * (p.sweight ? p.sweight[i] : 1));
    } else {
      grad[(spatial ? 2 : 0) * width] = float(w);
      grad[(spatial ? 3 : 1) * width] = float(b);
    }
  }
}

template <class Maps>
void backward(const Problem& p, const Channels& channels, const Maps& maps) {
  const int64_t rows = p.images * p.channels, normed = p.norm == kNoNorm ? 0 : rows;
  const int64_t awaited = p.norm == kBatch ? rows : 0;  // rows whose gradient depends on the sums of all images
  PerRow weight(rows), bias(rows), u(normed), ux(normed), c0(awaited), c1(awaited), c2(awaited);
  maps.backward(
      [&](int64_t row, int64_t place, int count, const Numbers& numbers, const Sums& sums) {
        const Gradients g(p, channels, place, numbers, sums);
        weight.set(row, g.weight, count);
        bias.set(row, g.bias, count);
        if (normed) {
          u.set(row, g.u, count);
          ux.set(row, g.ux, count);
        }
        if (awaited) {
          c0.set(row, g.c0, count);
          c1.set(row, g.c1, count);
          c2.set(row, g.c2, count);
        }
        return g;
      },
      !awaited);
  gate_gradients(p, channels, weight, bias);
  if (!normed) return;
#pragma omp parallel for schedule(static) num_threads(p.threads)
  for (int64_t place = 0; place < p.channels; ++place) {
    const int64_t channel = channels.at[place];
    double total_u = 0, total_ux = 0;
    for (int64_t row = place; row < rows; row += p.channels) {
      total_u += u[row];
      total_ux += ux[row];
    }
    const double precision = 1 / (double(p.bn_variance(channel)) + p.bn_epsilon);
    p.grad_bn[channel] = float(total_ux * std::sqrt(precision));
    p.grad_bn[p.channels + channel] = float(total_u);
    if (!awaited) continue;
    // The gradients through mean and variance of the batch: a constant, and a term linear in x.
    const double everything = double(p.positions) * double(p.images);
    const double constant = total_u / everything, linear = total_ux * precision / everything;
    for (int64_t row = place; row < rows; row += p.channels) {
      const float centre = float(mean_of(p, row, maps.first_of(row - place + channel)));
      const double distance = double(centre) - p.bn_mean(channel) - p.bn_residue(channel);
      c0[row] -= float(constant + linear * distance);
      c2[row] -= float(linear);
    }
  }
  if (awaited) maps.write_gradients(c0, c1, c2);
}

template <class Maps>
void run(Problem p) {
  std::unique_ptr<float[]> rows;
  if (!p.rows) {
    rows.reset(new float[2 * p.images * p.channels]);
    p.rows = rows.get();
  }
  Channels channels(p, Maps::order(p));
  const Maps maps(p, channels);
  if (p.grad_out)
    backward(p, channels, maps);
  else
    forward(p, channels, maps);
}

template <class T, bool kNormed>
void run_in(const Problem& p) {
  if (!p.channels_last)
    run<RowMaps<T, kNormed>>(p);
  else if (ChannelMaps<T, kNormed, kInterleaved>::takes(p))
    run<ChannelMaps<T, kNormed, kInterleaved>>(p);
  else if (ChannelMaps<T, kNormed, kAsTheyAre>::takes(p))
    run<ChannelMaps<T, kNormed, kAsTheyAre>>(p);
  else if (ChannelMaps<T, kNormed, kFolded>::takes(p))
    run<ChannelMaps<T, kNormed, kFolded>>(p);
  else
    run<ChannelMaps<T, true, kScattered>>(p);  // with an identity norm, if there is none
}

template <class T>
void run_in(const Problem& p) {
  if (p.norm == kNoNorm)
    run_in<T, false>(p);
  else
    run_in<T, true>(p);
}

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

// Whether this build supports half.
EXPORTED int has_half() {
#ifdef HAS_HALF
  return 1;
#else
  return 0;
#endif
}

// Computes forward, or backward if grad_out is set. Returns 0; 1 if this build does not support the type; 2 if the
// permutation is invalid.
EXPORTED int shuffle_attention(const Problem* problem) {
  if (problem->permutation && !is_permutation(*problem)) return 2;
  switch (problem->dtype) {
    case kFloat:
      run_in<float>(*problem);
      return 0;
    case kBFloat16:
      run_in<BFloat16>(*problem);
      return 0;
#ifdef HAS_HALF
    case kHalf:
      run_in<Half>(*problem);
      return 0;
#endif
    default:
      return 1;
  }
}
