// Contiguous maps: (images, channels, positions). A worker processes a few rows at a time: few enough to stay in the
// cache until they are read again, and enough to vectorize the computation of their constants. Rows are processed in
// the memory order of the result.
#pragma once

#include <algorithm>

#include "problem.h"

// A row in steps of kLanes. A remainder is a last step that ends with the row and overlaps the one before: results may
// be written twice, but sums count only the lanes that are new.
struct Steps {
  int64_t whole;     // positions in full steps
  int64_t last = 0;  // first position of the last step
  bool ragged;       // whether there is a remainder
  Mask counted{};    // lanes of the last step that are new

  explicit Steps(int64_t positions) : whole(positions / kLanes * kLanes), ragged(positions % kLanes != 0) {
    if (positions >= kLanes) last = positions - kLanes;
    for (int i = 0; i < kLanes; ++i) counted[i] = last + i >= whole && last + i < positions ? -1 : 0;
  }

  template <class Step>
  INLINED void each(Step step) const {
    const int64_t end = whole;
    for (int64_t i = 0; i < end; i += kLanes) step(i, Mask{} - 1);
    if (ragged) step(last, counted);
  }

  // The same in runs, each followed by `flush`, which adds the sums of the run: more accurate than one long sum.
  template <class Step, class Flush>
  INLINED void each(Step step, Flush flush) const {
    constexpr int64_t kRun = 64 * kLanes;
    for (int64_t i = 0; i < whole; flush()) {
      const int64_t end = std::min(whole, i + kRun);
      for (; i < end; i += kLanes) step(i, Mask{} - 1);
    }
    if (!ragged) return;
    step(last, counted);
    flush();
  }
};

// An input row. A row shorter than a step is copied into a buffer of kLanes values.
template <class T>
class Source {
 public:
  Source(const void* map, int64_t row, int64_t positions) : row(static_cast<const T*>(map) + row * positions) {
    if (positions >= kLanes) return;
    memset(copy, 0, sizeof copy);
    memcpy(copy, this->row, positions * sizeof(T));
    this->row = copy;
  }
  Source(const Source&) = delete;
  operator const T*() const { return row; }

 private:
  const T* row;
  T copy[kLanes];
};

// Writes consecutive rows by streaming stores of whole cache lines: the end of a row that does not fill a line is kept
// and written with the next row.
template <class T>
class LineStream {
 public:
  explicit LineStream(int64_t positions)
      : bytes(positions * int64_t(sizeof(T))), buffer(size_t(bytes + 2 * kLine + kLanes * int64_t(sizeof(T)))) {
    lines = buffer.data() + (kLine - reinterpret_cast<intptr_t>(buffer.data()) % kLine) % kLine;
  }
  LineStream(const LineStream&) = delete;
  ~LineStream() { flush(); }

  // The place for the values of the row at an address; `finish_row` follows when they are there.
  T* start_row(T* row) {
    const int64_t offset = reinterpret_cast<intptr_t>(row) % kLine;
    if (reinterpret_cast<char*>(row) != to + end) {
      flush();
      to = reinterpret_cast<char*>(row) - offset;
      begin = end = offset;
    }
    return reinterpret_cast<T*>(lines + end);
  }

  void finish_row() {
    end += bytes;
    const int64_t whole = end / kLine * kLine;
    if (whole == 0) return;
    memcpy(to + begin, lines + begin, (kLine - begin) % kLine);  // the part of a line that other rows began
    for (int64_t i = begin ? kLine : 0; i < whole; i += kLine) stream<kLine>(to + i, lines + i);
    memcpy(lines, lines + whole, end - whole);
    to += whole;
    begin = 0;
    end -= whole;
  }

 private:
  void flush() const { memcpy(to + begin, lines + begin, end - begin); }

  const int64_t bytes;         // of a row
  std::vector<char> buffer;
  char* lines;                 // the buffer from its first full line on: a copy of the memory at `to`
  char* to = nullptr;          // a multiple of kLine
  int64_t begin = 0, end = 0;  // the bytes of `lines` that are yet to be written
};

// How the rows of an output map are written: through the cache, by streaming stores of each step, or by those of
// each row from a buffer. Those of each step overlap the computation, but need rows of whole cache lines.
enum class Stores { kCached, kStreamedSteps, kStreamedRows };

// An output row. A row that is streamed as a whole, or is shorter than a step, is written to a buffer first.
template <class T>
class Target {
 public:
  Target(void* map, int64_t row, int64_t positions, Stores stores, LineStream<T>& lines, T* buffer)
      : to(static_cast<T*>(map) + row * positions), positions(positions), stores(stores), lines(lines) {
    written = stores == Stores::kStreamedRows ? lines.start_row(to) : positions < kLanes ? buffer : to;
  }
  Target(const Target&) = delete;
  ~Target() {
    if (stores == Stores::kStreamedRows)
      lines.finish_row();
    else if (written != to)
      memcpy(to, written, positions * sizeof(T));
  }

  // Calls use(put), where put(i, lanes) writes a step; a choice made once per row is faster than one per step.
  template <class Use>
  INLINED void with_put(Use use) const {
    T* const row = written;
    if (stores == Stores::kStreamedSteps)
      use([=](int64_t i, Lanes lanes) INLINED { store(row + i, lanes, true); });
    else
      use([=](int64_t i, Lanes lanes) INLINED { store(row + i, lanes); });
  }

 private:
  T *to, *written;
  const int64_t positions;
  const Stores stores;
  LineStream<T>& lines;
};

// Without a batch norm, u = x.
template <class T, bool kNormed>
class RowMaps {
 public:
  RowMaps(const Problem& problem, const Channels& channels)
      : p(problem), channels(channels), steps(problem.positions) {
    constexpr int64_t kTogether = 200 << 10;  // bytes of rows of a map: a second-level cache holds three times as many
    constexpr int64_t kCached = 16 << 20;     // bytes of a map that may still be in the cache when it is read next
    bytes = p.positions * int64_t(sizeof(T));
    width = p.positions + kLanes;
    // Whether rows consist of whole cache lines, and steps are large enough for streaming stores.
    const bool lines = bytes % kLine == 0 && kLanes * sizeof(T) % 16 == 0 && starts_line(p.out) &&
                       starts_line(p.grad_x) && starts_line(p.grad_shortcut);
    // Backward writes rows of x in the order of the result; partial lines are then better written through the cache.
    if (kStreams && (lines || !p.grad_out) && p.images * p.channels * bytes > kCached)
      stores = lines ? Stores::kStreamedSteps : Stores::kStreamedRows;
    together = int(std::max<int64_t>(1, std::min<int64_t>(kLanes, kTogether / bytes)));
  }

  static std::vector<int64_t> order(const Problem& p) { return shuffled(p); }

  void statistics(bool of_all_branches) const {
    each([&](const Run& run) { measure(run, of_all_branches); });
  }

  void forward(bool measured) const {
    each([&](const Run& run) {
      if (!measured) measure(run, false);
      const Numbers numbers = numbers_of(run);
      for (int i = 0; i < run.count; ++i) {
        const Source<T> x(p.x, run.inner[i], p.positions);
        target(run, p.out, run.row + i).with_put([&](auto put) INLINED {
          if (p.shortcut)
            write<true>(numbers, i, run.next[i], x, Source<T>(p.shortcut, run.row + i, p.positions), put);
          else
            write<false>(numbers, i, run.next[i], x, nullptr, put);
        });
      }
    });
  }

  // Calls use(row, place, count, numbers, sums) for runs of rows, and writes the gradient of x if `write`.
  template <class Use>
  void backward(Use use, bool write) const {
    each([&](const Run& run) {
      const Numbers numbers = numbers_of(run);
      const Lanes through_gate = Gradients::through_gate(p, channels, run.place, numbers);
      Totals totals(run.count);
      for (int i = 0; i < run.count; ++i) {
        const int64_t row = run.row + i;
        float* part = write ? run.parts + i * width : nullptr;
        const Source<T> x(p.x, run.inner[i], p.positions), dy(p.grad_out, row, p.positions);
        if (p.grad_shortcut) {
          const Source<T> out(p.out, row, p.positions);
          target(run, p.grad_shortcut, row).with_put([&](auto put) INLINED {
            sum_up<true>(numbers, through_gate, i, run.next[i], x, dy, out, put, part, totals);
          });
        } else {
          const auto put = [](int64_t, Lanes) {};
          sum_up<false>(numbers, through_gate, i, run.next[i], x, dy, nullptr, put, part, totals);
        }
      }
      const Gradients gradients = use(run.row, run.place, run.count, numbers, totals.summed());
      if (!write) return;
      for (int i = 0; i < run.count; ++i) {
        const Source<T> x(p.x, run.inner[i], p.positions);
        target(run, p.grad_x, run.inner[i]).with_put([&](auto put) INLINED {
          finish_gradient(numbers, gradients, i, x, run.parts + i * width, put);
        });
      }
    });
  }

  void write_gradients(const PerRow& c0, const PerRow& c1, const PerRow& c2) const {
    each([&](const Run& run) {
      const Numbers numbers = numbers_of(run);
      Gradients gradients;
      gradients.c0 = c0.at(run.row);
      gradients.c1 = c1.at(run.row);
      gradients.c2 = c2.at(run.row);
      write_gradients(run, numbers, gradients);
    });
  }

  // The first value of a row.
  float first_of(int64_t row) const { return first(static_cast<const T*>(p.x) + row * p.positions); }

 private:
  // Rows of the result that are processed together.
  struct Run {
    int64_t row, place;  // of the first row
    int count;
    int64_t inner[kLanes];  // the rows of x before the shuffle
    const T* next[kLanes];  // later rows of x, to prefetch
    T* buffer;              // buffer for a row shorter than a step
    LineStream<T>* lines;   // rows that are streamed
    float* parts;           // buffer for the gradients of rows before the terms with sums are added
  };

  // Sums per lane of each row.
  struct Totals {
    Lanes d[kLanes], dx[kLanes], y[kLanes], yx[kLanes];

    explicit Totals(int count) {  // entries of the first `count` rows are set later
      for (int i = count; i < kLanes; ++i) d[i] = dx[i] = y[i] = yx[i] = Lanes{};
    }
    Sums summed() const { return {sums(d), sums(dx), sums(y), sums(yx)}; }
  };

  // Calls body(run) for all rows, which are divided among the workers.
  template <class Body>
  void each(Body body) const {
    const int64_t rows = p.images * p.channels, share = (rows + p.threads - 1) / p.threads;
    // Consecutive rows of the result come from `shuffle_groups` sequences of rows of x.
    const int64_t stride = std::max<int64_t>(1, together / p.shuffle_groups);
#pragma omp parallel for schedule(static, 1) num_threads(p.threads)
    for (int64_t worker = 0; worker < p.threads; ++worker) {
      const int64_t end = std::min(rows, (worker + 1) * share);
      int64_t row = worker * share, image = row / p.channels, place = row % p.channels;
      T buffer[kLanes];
      LineStream<T> lines(stores == Stores::kStreamedRows ? p.positions : 0);
      std::vector<float> parts(size_t(p.grad_out ? together * width : 0));
      Run run;
      run.buffer = buffer;
      run.lines = &lines;
      run.parts = parts.data();
      for (; row < end; row += run.count) {
        run.row = row;
        run.place = place;
        run.count = int(std::min<int64_t>(together, end - row));
        for (int i = 0; i < run.count; ++i) {
          run.inner[i] = image * p.channels + channels.at[place];
          const int64_t ahead = run.inner[i] + stride;
          run.next[i] = static_cast<const T*>(p.x) + std::min(ahead, rows - 1) * p.positions;
          if (++place == p.channels) {
            place = 0;
            ++image;
          }
        }
        body(run);
      }
      if (stores != Stores::kCached) finish_streams();
    }
  }

  static bool starts_line(const void* map) { return reinterpret_cast<intptr_t>(map) % kLine == 0; }

  Target<T> target(const Run& run, void* map, int64_t row) const {
    return Target<T>(map, row, p.positions, stores, *run.lines, run.buffer);
  }

  Lanes first_of(const Run& run) const {
    Lanes values{};
    for (int i = 0; i < run.count; ++i) values[i] = first_of(run.inner[i]);
    return values;
  }

  Numbers numbers_of(const Run& run) const {
    const Lanes offset = load_some(p.offset(run.row), run.count), variance = load_some(p.variance(run.row), run.count);
    return Numbers(p, channels, run.place, first_of(run), offset, variance);
  }

  void measure(const Run& run, bool of_all_branches) const {
    const Lanes passed = channels.is_passed(run.place), values = first_of(run);
    Lanes totals[kLanes], squares[kLanes];
    for (int i = 0; i < kLanes; ++i)
      if (i < run.count && (passed[i] == 0 || of_all_branches))
        add_up(Source<T>(p.x, run.inner[i], p.positions), values[i], totals[i], squares[i]);
      else
        totals[i] = squares[i] = Lanes{};
    const Lanes n = splat(float(p.positions));
    Lanes offset = sums(totals) / n, variance = sums(squares) / n - offset * offset;
    variance = variance < 0.0f ? Lanes{} : variance;
    // If the first value of a row is an outlier, it is a bad centre: the differences have cancelled.
    const Mask cancelled = offset * offset > variance * 16.0f;
    for (int i = 0; any(cancelled) && i < run.count; ++i)
      if (cancelled[i]) measure_again(Source<T>(p.x, run.inner[i], p.positions), values[i], i, offset, variance);
    store_some(p.offset(run.row), offset, run.count);
    store_some(p.variance(run.row), variance, run.count);
  }

  void measure_again(const T* x, float first, int row, Lanes& offset, Lanes& variance) const {
    Lanes totals[kLanes] = {}, squares[kLanes] = {};
    const float centre = first + offset[row];
    add_up(x, centre, totals[0], squares[0]);
    const double n = double(p.positions), rest = sums(totals)[0] / n;
    const Kept kept(centre + rest, first, std::max(0.0, sums(squares)[0] / n - rest * rest), true);
    offset[row] = kept.offset;
    variance[row] = kept.variance;
  }

  // Sums of x - centre and of its square, with four independent accumulators.
  void add_up(const T* x, float centre, Lanes& total, Lanes& square) const {
    Lanes totals[4] = {}, squares[4] = {};
    const auto add = [&](Lanes centred, int j) INLINED {
      totals[j] += centred;
      squares[j] += centred * centred;
    };
    int64_t i = 0;
    for (; i + 4 * kLanes <= steps.whole; i += 4 * kLanes)
      for (int j = 0; j < 4; ++j) add(load(x + i + j * kLanes) - centre, j);
    for (; i < steps.whole; i += kLanes) add(load(x + i) - centre, 0);
    if (steps.ragged) add(select(steps.counted, load(x + steps.last) - centre, Lanes{}), 1);
    total = (totals[0] + totals[1]) + (totals[2] + totals[3]);
    square = (squares[0] + squares[1]) + (squares[2] + squares[3]);
  }

  template <bool kJoined, class Put>
  void write(const Numbers& n, int row, const T* next, const T* x, const T* shortcut, Put put) const {
    const auto finish = [&](int64_t i, Lanes y) INLINED {
      if (kJoined) {
        y += load(shortcut + i);
        y = y < 0.0f ? Lanes{} : y;  // in this form NaN stays NaN
      }
      put(i, y);
    };
    const float origin = n.origin[row], slope = n.slope[row];
    if (slope == 0) {
      const float gate = n.constant.open[row], scale = n.scale[row] * gate, shift = n.shift[row] * gate;
      steps.each([&](int64_t i, Mask) INLINED {
        __builtin_prefetch(next + i);
        finish(i, kNormed ? (load(x + i) - origin) * scale + shift : load(x + i) * scale);
      });
      return;
    }
    const float scale = n.scale[row], shift = n.shift[row], centre = n.centre[row], level = n.level[row];
    with_gate(n.bounded[row], [&](auto gate) INLINED {
      steps.each([&](int64_t i, Mask) INLINED {
        __builtin_prefetch(next + i);
        const Lanes value = load(x + i), open = gate((value - centre) * slope + level).open;
        finish(i, (kNormed ? (value - origin) * scale + shift : value) * open);
      });
    });
  }

  // If the block ends in a ReLU, also writes the gradient before it; if the gradient of x will follow, stores the part
  // of it that does not depend on sums: dy s + c1 D.
  template <bool kJoined, class Put>
  void sum_up(const Numbers& n, const Lanes& through, int row, const T* next, const T* x,
              const T* grad_out, const T* out, Put put, float* part, Totals& totals) const {
    const float origin = n.origin[row], scale = n.scale[row], shift = n.shift[row], centre = n.centre[row];
    const float slope = n.slope[row], level = n.level[row], c1 = through[row];
    const bool is_passed = n.passed[row];
    Lanes d{}, dx{}, y{}, yx{};  // sums of a run
    Lanes sum_d{}, sum_dx{}, sum_y{}, sum_yx{};
    const auto flush = [&] {
      sum_d += d;
      sum_dx += dx;
      sum_y += y;
      sum_yx += yx;
      d = dx = y = yx = Lanes{};
    };
    const auto add = [&](int64_t i, Mask counted, auto gate_at) INLINED {
      __builtin_prefetch(next + i);
      Lanes dy = load(grad_out + i);
      if (kJoined) {
        dy = load(out + i) <= 0.0f ? Lanes{} : dy;
        put(i, dy);
      }
      const Lanes value = load(x + i), centred = value - centre;
      const Gate gate = gate_at(centred);
      Lanes gated = dy * gate.open;
      const Lanes normed = kNormed ? (value - origin) * scale + shift : value;
      Lanes through_gate = is_passed ? Lanes{} : gated * normed * gate.closed;
      if (part) store(part + i, gated + through_gate * c1);
      gated = select(counted, gated, Lanes{});
      through_gate = select(counted, through_gate, Lanes{});
      d += through_gate;
      dx += through_gate * centred;
      if (kNormed) {
        y += gated;
        yx += gated * centred;
      }
    };
    if (slope == 0) {
      const Gate gate = {splat(n.constant.open[row]), splat(n.constant.closed[row])};
      steps.each([&](int64_t i, Mask counted) INLINED { add(i, counted, [&](Lanes) { return gate; }); }, flush);
    } else {
      with_gate(n.bounded[row], [&](auto gate) INLINED {
        const auto gate_at = [&](Lanes centred) INLINED { return gate(centred * slope + level); };
        steps.each([&](int64_t i, Mask counted) INLINED { add(i, counted, gate_at); }, flush);
      });
    }
    totals.d[row] = sum_d;
    totals.dx[row] = sum_dx;
    totals.y[row] = sum_y;
    totals.yx[row] = sum_yx;
  }

  template <class Put>
  void finish_gradient(const Numbers& n, const Gradients& g, int row, const T* x, const float* part, Put put) const {
    const float scale = n.scale[row], c0 = g.c0[row] * scale, c2 = g.c2[row] * scale, centre = n.centre[row];
    if (c2 == 0)
      steps.each([&](int64_t i, Mask) INLINED { put(i, load(part + i) * scale + c0); });
    else
      steps.each([&](int64_t i, Mask) INLINED {
        put(i, load(part + i) * scale + ((load(x + i) - centre) * c2 + c0));
      });
  }

  void write_gradients(const Run& run, const Numbers& numbers, const Gradients& gradients) const {
    const void* grad = p.grad_shortcut ? p.grad_shortcut : p.grad_out;
    for (int i = 0; i < run.count; ++i) {
      const Source<T> x(p.x, run.inner[i], p.positions), dy(grad, run.row + i, p.positions);
      target(run, p.grad_x, run.inner[i]).with_put([&](auto put) INLINED {
        write_gradient(numbers, gradients, i, x, dy, put);
      });
    }
  }

  template <class Put>
  void write_gradient(const Numbers& n, const Gradients& g, int row, const T* x, const T* dy, Put put) const {
    const float origin = n.origin[row], scale = n.scale[row], shift = n.shift[row], centre = n.centre[row];
    const float slope = n.slope[row], level = n.level[row], c0 = g.c0[row], c1 = g.c1[row], c2 = g.c2[row];
    if (slope == 0) {
      const float gate = n.constant.open[row];
      steps.each([&](int64_t i, Mask) INLINED {
        put(i, (load(dy + i) * gate + ((load(x + i) - centre) * c2 + c0)) * scale);
      });
      return;
    }
    steps.each([&](int64_t i, Mask) INLINED {
      const Lanes value = load(x + i), centred = value - centre;
      const Gate gate = gate_of(centred * slope + level);
      const Lanes gated = load(dy + i) * gate.open;
      const Lanes through_gate = gated * (kNormed ? (value - origin) * scale + shift : value) * gate.closed;
      put(i, (gated + through_gate * c1 + (centred * c2 + c0)) * scale);
    });
  }

  const Problem& p;
  const Channels& channels;
  const Steps steps;
  int64_t bytes;  // of a row
  int64_t width;  // of a row in `parts`
  int together;   // rows that a worker processes at a time
  Stores stores = Stores::kCached;
};
