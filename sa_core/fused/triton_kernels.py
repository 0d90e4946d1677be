# mypy: ignore-errors
"""The operator's Triton kernels; `sa_core.fused.gpu` launches them. The formulas are those of `kernels/problem.h`.

A row is a channel of an image. A program processes tiles of `tile_rows` rows of one image by `tile_width` positions.
Rows are in the order of the result: the shuffle determines from which channel of x a row is read, and to which channel
its gradient is written. The same code serves both memory layouts; only the strides differ.

Values that functions pass to each other, for each row except `sizes`:

    sizes       channels, half of the channels, positions
    here        block index of the program; and place in the result, channel in x, whether the row exists
    first       first value, which is subtracted before summation, so that large means do not reduce accuracy
    offset      mean - `first`
    centre      the mean, rounded to float32; `residue` is the rounding error
    norm        scale, origin, residue and shift of the batch norm: u = scale (x - origin) + shift
    branch      whether the row has a channel gate, whether it has a spatial gate, and weight and bias of F_c
    lines       scale, origin and shift of u, and centre, slope and level of t = slope (x - centre) + level
"""

import triton
import triton.language as tl

# --- addressing


@triton.jit
def _here(permutation, channels, shuffle_groups: tl.constexpr, tile_rows: tl.constexpr):
    """Returns the image of the program, and `here`."""
    blocks = tl.cdiv(channels, tile_rows)
    image = tl.program_id(0) // blocks
    block = tl.program_id(0) % blocks
    place = block * tile_rows + tl.arange(0, tile_rows)
    real = place < channels
    if permutation is not None:
        channel = tl.load(permutation + place, mask=real, other=0).to(tl.int32)
    elif shuffle_groups == 1:
        channel = place
    else:
        channel = (place % shuffle_groups) * (channels // shuffle_groups) + place // shuffle_groups
    return image, (block, place, channel, real)


@triton.jit
def _in_image(row, position, sizes, channels_last: tl.constexpr):
    """Returns the offsets (R, P) within an image of rows (R,) and positions (P,)."""
    channels, _, positions = sizes
    return (
        row[:, None] + position[None, :] * channels if channels_last else row[:, None] * positions + position[None, :]
    )


@triton.jit
def _in_half(position, inside, here, sizes):
    """Returns the offsets within a channels_last image of the even places of a tile, and their mask.

    The odd places are half of the channels further on, so both are contiguous in memory.
    """
    block, place, _, _ = here
    channels, half, _ = sizes
    row = block * (place.shape[0] // 2) + tl.arange(0, place.shape[0] // 2)
    return row[:, None] + position[None, :] * channels, (row < half)[:, None] & inside[None, :]


@triton.jit
def _read(x, position, inside, here, sizes, channels_last: tl.constexpr, paired: tl.constexpr):
    """Returns a tile of an image of x in float32, its rows in the order of the result; 0 outside of the map."""
    _, _, channel, real = here
    if paired:
        at, there = _in_half(position, inside, here, sizes)
        even = tl.load(x + at, mask=there, other=0.0)
        odd = tl.load(x + sizes[1] + at, mask=there, other=0.0)
        tile = tl.reshape(tl.permute(tl.join(even, odd), (0, 2, 1)), (channel.shape[0], position.shape[0]))
    else:
        at = _in_image(channel, position, sizes, channels_last)
        tile = tl.load(x + at, mask=real[:, None] & inside[None, :], other=0.0)
    return tile.to(tl.float32)


@triton.jit
def _write(x, tile, position, inside, here, sizes, channels_last: tl.constexpr, paired: tl.constexpr):
    """Writes a tile to the elements that `_read` reads."""
    _, _, channel, real = here
    tile = tile.to(x.dtype.element_ty)
    if paired:
        at, there = _in_half(position, inside, here, sizes)
        pairs = tl.reshape(tile, (channel.shape[0] // 2, 2, position.shape[0]))
        even, odd = tl.split(tl.permute(pairs, (0, 2, 1)))
        tl.store(x + at, even, mask=there)
        tl.store(x + sizes[1] + at, odd, mask=there)
    else:
        at = _in_image(channel, position, sizes, channels_last)
        tl.store(x + at, tile, mask=real[:, None] & inside[None, :])


@triton.jit
def _first_of(x, image, channel, real, channels, positions, channels_last: tl.constexpr):
    """Returns the first values of rows in float32."""
    start = image.to(tl.int64) * channels
    at = start * positions + channel if channels_last else (start + channel) * positions
    return tl.load(x + at, mask=real, other=0.0).to(tl.float32)


@triton.jit
def _part_at(kind, part, image, channel, parts, images, channels):
    """Returns the offset (int64) in a workspace of shape (kinds, parts, images, channels)."""
    return ((kind * parts + part) * images + image).to(tl.int64) * channels + channel


@triton.jit
def _moved(values):
    """Returns the per-row values unchanged, in another register layout.

    Otherwise each thread computes the values of all its rows, redundantly with the other threads of these rows, which
    takes longer than the tile. In this layout, one lane computes the values of a row and passes them to the others.
    """
    return values if values.shape[0] < 8 else tl.gather(values, tl.arange(0, values.shape[0]), 0)


# --- statistics


@triton.jit
def _merge(mean, square, count, n):
    """Returns mean and sum of squared deviations of rows, from those of their parts (R, P) of `count` values each."""
    offset = tl.sum(mean * count, 1) / n
    distance = mean - offset[:, None]
    return offset, tl.sum(square + distance * distance * count, 1)


@triton.jit
def _measure(
    x,
    first,
    begin,
    end,
    here,
    sizes,
    channels_last: tl.constexpr,
    paired: tl.constexpr,
    tile_width: tl.constexpr,
):
    """Returns mean and sum of squared deviations of x - first over the positions from `begin` to `end`.

    Each lane accumulates its own positions (Welford 1962), and lanes are merged at the end (Chan et al. 1979).
    """
    mean = tl.zeros((first.shape[0], tile_width), tl.float32)
    square = tl.zeros((first.shape[0], tile_width), tl.float32)
    seen = 0.0
    for at in range(begin, end, tile_width):
        position = at + tl.arange(0, tile_width)
        inside = position < end
        tile = _read(x, position, inside, here, sizes, channels_last, paired)
        seen += 1.0
        distance = tl.where(inside[None, :], tile - first[:, None] - mean, 0.0)
        mean += distance * (1.0 / seen)
        square += distance * distance * (1.0 - 1.0 / seen)
    count = (end - begin - tl.arange(0, tile_width) + tile_width - 1) // tile_width
    return _merge(mean, square, count[None, :].to(tl.float32), (end - begin).to(tl.float32))


@triton.jit
def statistics_kernel(
    x,
    measured,
    permutation,
    images,
    channel_steps,
    position_steps,
    span,
    parts,
    channel_align: tl.constexpr,
    position_align: tl.constexpr,
    channels_last: tl.constexpr,
    shuffle_groups: tl.constexpr,
    paired: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_width: tl.constexpr,
):
    """Writes the results of `_measure` for parts of rows with `span` positions each: (2, parts, B, C)."""
    channels, positions = channel_steps * channel_align, position_steps * position_align
    sizes = (channels, channel_steps * (channel_align // 2), positions)
    image, here = _here(permutation, channels, shuffle_groups, tile_rows)
    _, _, channel, real = here
    first = _moved(_first_of(x, image, channel, real, channels, positions, channels_last))
    x += image.to(tl.int64) * channels * positions
    part = tl.program_id(1)
    begin = part * span
    end = tl.minimum(begin + span, positions)
    offset, square = _measure(x, first, begin, end, here, sizes, channels_last, paired, tile_width)
    tl.store(measured + _part_at(0, part, image, channel, parts, images, channels), _moved(offset), mask=real)
    tl.store(measured + _part_at(1, part, image, channel, parts, images, channels), _moved(square), mask=real)


@triton.jit
def moments_kernel(
    x,
    measured,
    rows,
    moments,
    images,
    channels,
    positions,
    span,
    parts,
    channels_last: tl.constexpr,
    tile_images: tl.constexpr,
    tile_channels: tl.constexpr,
):
    """Merges the parts of rows, and writes statistics of rows, and mean and variance of channels over all images."""
    channel = (tl.program_id(0) * tile_channels + tl.arange(0, tile_channels))[None, :]
    there = channel < channels
    shape: tl.constexpr = (tile_images, tile_channels)
    nought = tl.program_id(0) * 0
    centre = _first_of(x, nought, channel, there, channels, positions, channels_last).to(tl.float64)
    total, squares = tl.zeros(shape, tl.float64), tl.zeros(shape, tl.float64)
    for begin in range(0, images, tile_images):
        image = (begin + tl.arange(0, tile_images))[:, None]
        real = (image < images) & there
        offset, square = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
        for part in range(0, parts):
            start = part * span
            count = tl.minimum(span, positions - start) * 1.0
            at = _part_at(0, part, image, channel, parts, images, channels)
            mean = tl.load(measured + at, mask=real, other=0.0)
            at = _part_at(1, part, image, channel, parts, images, channels)
            within = tl.load(measured + at, mask=real, other=0.0)
            distance, share = mean - offset, count / (start + count)
            offset += distance * share
            square += within + distance * distance * (start * share)
        variance = square / (positions * 1.0)
        row = image * channels + channel
        tl.store(rows + row, offset, mask=real)
        tl.store(rows + images * channels + row, variance, mask=real)
        first = _first_of(x, image, channel, real, channels, positions, channels_last).to(tl.float64)
        distance = tl.where(real, first - centre + offset, 0.0)
        total += distance
        squares += tl.where(real, distance * distance + variance, 0.0)
    # Computed from distances to a value of the channel: in float64, cancellation stays below float32 precision.
    distance = tl.sum(total, 0)[None, :] / images
    variance = tl.sum(squares, 0)[None, :] / images - distance * distance
    mean = centre + distance
    kept = mean.to(tl.float32)
    tl.store(moments + channel, kept, mask=there)
    tl.store(moments + channels + channel, tl.maximum(variance, 0.0).to(tl.float32), mask=there)
    tl.store(moments + 2 * channels + channel, (mean - kept).to(tl.float32), mask=there)


# --- per-row values, in tensors of equal shape


@triton.jit
def _parameter(values, at, mask, absent: tl.constexpr):
    """Returns parameters, or `absent` if there are none."""
    # Triton also compiles code after a return, so the choice has to be an expression.
    return tl.zeros(at.shape, tl.float32) + absent if values is None else tl.load(values + at, mask=mask, other=absent)


@triton.jit
def _norm_of(channel, real, mean, variance, residue, weight, bias, epsilon, normed: tl.constexpr):
    """Returns `norm`; the identity if there is no batch norm."""
    if normed:
        deviation = tl.sqrt_rn(tl.load(variance + channel, mask=real, other=1.0) + epsilon)
        scale = tl.div_rn(_parameter(weight, channel, real, 1.0), deviation)
        origin = tl.load(mean + channel, mask=real, other=0.0)
        lacking = _parameter(residue, channel, real, 0.0)
        shift = _parameter(bias, channel, real, 0.0) - scale * lacking
    else:
        origin = tl.zeros(channel.shape, tl.float32)
        scale, lacking, shift = origin + 1.0, origin, origin
    return scale, origin, lacking, shift


@triton.jit
def _branch_of(
    channel, real, parameters, group_channels, split, channel_gate: tl.constexpr, spatial_gate: tl.constexpr
):
    """Returns `branch`; F_c includes the affine part of the instance norm. Rows without a gate have bias 100."""
    cweight, cbias, sweight, sbias, gn_weight, gn_bias = parameters
    within = channel % group_channels
    pooled, spatial = real & (within < split), real & (within >= split)
    weight = tl.zeros(channel.shape, tl.float32)
    bias = weight + 100.0
    if channel_gate:
        weight = tl.where(pooled, _parameter(cweight, within, pooled, 1.0), weight)
        bias = tl.where(pooled, _parameter(cbias, within, pooled, 0.0), bias)
    else:
        pooled = pooled & (within < 0)
    if spatial_gate == "none":
        spatial = spatial & (within < 0)
    else:
        factor = _parameter(sweight, within - split, spatial, 1.0)
        added = _parameter(sbias, within - split, spatial, 0.0)
        if spatial_gate == "instance":
            added += factor * _parameter(gn_bias, within - split, spatial, 0.0)
            factor *= _parameter(gn_weight, within - split, spatial, 1.0)
        weight = tl.where(spatial, factor, weight)
        bias = tl.where(spatial, added, bias)
    return pooled, spatial, weight, bias


@triton.jit
def _numbers_of(first, offset, variance, norm, branch, epsilon, spatial_gate: tl.constexpr):
    """Returns centre, residue, the mean of u, its inverse deviation, and slope and level of t."""
    scale, origin, _, shift = norm
    pooled, spatial, weight, bias = branch
    centre = first + offset
    kept = centre - first
    residue = (first - (centre - kept)) + (offset - kept)
    mean = scale * ((centre - origin) + residue) + shift
    inverse = tl.div_rn(1.0, tl.sqrt_rn(scale * scale * variance + epsilon))
    level = bias + tl.where(pooled, weight * mean, 0.0)
    if spatial_gate == "instance":
        slope = tl.where(spatial, weight * scale * inverse, 0.0)
    else:
        slope = tl.where(spatial, weight * scale, 0.0)
        level += tl.where(spatial, weight * mean, 0.0)
    level -= tl.where(spatial, slope * residue, 0.0)
    return centre, residue, mean, inverse, slope, level


@triton.jit
def _through_gate(branch, inverse, positions, spatial_gate: tl.constexpr):
    """Returns c1; it is 0 for an instance norm over a single position, whose output is constant."""
    _, spatial, weight, _ = branch
    if spatial_gate == "instance":
        weight = tl.where(positions == 1, 0.0, weight * inverse)
    return tl.where(spatial, weight, 0.0)


@triton.jit
def _linear_part(d, dx, c1, residue, inverse, norm, branch, positions, spatial_gate: tl.constexpr):
    """Returns c0, and c2 as the factor of x - centre, from the sums of D and D (x - mean)."""
    pooled, spatial, weight, _ = branch
    n = positions * 1.0
    c0 = tl.where(pooled, weight * d / n, 0.0)
    c2 = tl.zeros(d.shape, tl.float32)
    if spatial_gate == "instance":
        deviation = inverse * norm[0]
        c2 = tl.where(spatial, -(deviation * deviation) * c1 * dx / n, 0.0)
        c0 = tl.where(spatial, -c1 * d / n - c2 * residue, c0)
    return c0, c2


@triton.jit
def _lines_of(norm, centre, slope, level):
    """Returns `lines`, in the register layout of `_moved`."""
    scale, origin, _, shift = norm
    return _moved(scale), _moved(origin), _moved(shift), _moved(centre), _moved(slope), _moved(level)


# --- feature maps


@triton.jit
def _normalised(value, lines, normed: tl.constexpr):
    """Returns u."""
    if normed:
        scale, origin, shift, _, _, _ = lines
        value = (value - origin[:, None]) * scale[:, None] + shift[:, None]
    return value


@triton.jit
def _gate_of(value, lines):
    """Returns sigmoid(t); infinity or NaN in x propagates to it only if the gate depends on the value."""
    _, _, _, centre, slope, level = lines
    moving = tl.where(slope[:, None] == 0.0, 0.0, (value - centre[:, None]) * slope[:, None])
    return tl.sigmoid(moving + level[:, None])


@triton.jit
def _write_result(
    out, value, shortcut, lines, position, inside, here, sizes, channels_last: tl.constexpr, normed: tl.constexpr
):
    """Writes a tile of the result, computed from a tile of x."""
    _, place, _, real = here
    y = _normalised(value, lines, normed) * _gate_of(value, lines)
    at = _in_image(place, position, sizes, channels_last)
    there = real[:, None] & inside[None, :]
    if shortcut is not None:
        y += tl.load(shortcut + at, mask=there, other=0.0).to(tl.float32)
        y = tl.where(y < 0.0, 0.0, y)  # unlike tl.maximum, keeps NaN
    tl.store(out + at, y.to(out.dtype.element_ty), mask=there)


@triton.jit
def forward_kernel(
    x,
    shortcut,
    out,
    rows,
    measured,
    moments,
    bn_mean,
    bn_variance,
    bn_residue,
    bn_weight,
    bn_bias,
    cweight,
    cbias,
    sweight,
    sbias,
    gn_weight,
    gn_bias,
    permutation,
    images,
    channel_steps,
    position_steps,
    group_channels,
    split,
    span,
    parts,
    gn_epsilon,
    bn_epsilon,
    channel_align: tl.constexpr,
    position_align: tl.constexpr,
    channels_last: tl.constexpr,
    shuffle_groups: tl.constexpr,
    paired: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_width: tl.constexpr,
    looped: tl.constexpr,
    channel_gate: tl.constexpr,
    spatial_gate: tl.constexpr,
    normed: tl.constexpr,
    known: tl.constexpr,
    tile_parts: tl.constexpr,
):
    """Writes `span` positions of the result.

    `known` names the source of the row statistics: `rows`; `parts`, the results of `statistics_kernel`; or `not yet`,
    for which this kernel computes them, reading a row only once if it fits into a tile. Unless `known` is `rows`, the
    kernel also writes `rows`. If `moments` is given, it writes the moments of the batch norm there.
    """
    channels, positions = channel_steps * channel_align, position_steps * position_align
    sizes = (channels, channel_steps * (channel_align // 2), positions)
    image, here = _here(permutation, channels, shuffle_groups, tile_rows)
    _, _, channel, real = here
    first = _first_of(x, image, channel, real, channels, positions, channels_last)
    start = image.to(tl.int64) * channels * positions
    x += start
    out += start
    if shortcut is not None:
        shortcut += start
    begin = tl.program_id(1) * span
    end = tl.minimum(begin + span, positions)
    position = begin + tl.arange(0, tile_width)
    inside = position < end
    if not looped:
        value = _read(x, position, inside, here, sizes, channels_last, paired)
    row = image * channels + channel
    if known == "rows":
        offset = tl.load(rows + row, mask=real, other=0.0)
        variance = tl.load(rows + images * channels + row, mask=real, other=0.0)
    else:
        if known == "parts":
            part = tl.arange(0, tile_parts)[None, :]
            there = real[:, None] & (part < parts)
            at = _part_at(0, part, image, channel[:, None], parts, images, channels)
            means = tl.load(measured + at, mask=there, other=0.0)
            at = _part_at(1, part, image, channel[:, None], parts, images, channels)
            squares = tl.load(measured + at, mask=there, other=0.0)
            count = tl.maximum(tl.minimum(span, positions - part * span), 0).to(tl.float32)
            offset, square = _merge(means, squares, count, positions * 1.0)
        elif looped:
            offset, square = _measure(x, _moved(first), begin, end, here, sizes, channels_last, paired, tile_width)
        else:
            distance = tl.where(inside[None, :], value - _moved(first)[:, None], 0.0)
            count = inside[None, :].to(tl.float32)
            offset, square = _merge(distance, tl.zeros_like(distance), count, positions * 1.0)
        offset, variance = _moved(offset), _moved(square) / (positions * 1.0)
        writes = real & (tl.program_id(1) == 0)
        tl.store(rows + row, offset, mask=writes)
        tl.store(rows + images * channels + row, variance, mask=writes)
    if moments is not None:
        writes = real & (tl.program_id(1) == 0) & (image == 0)
        tl.store(moments + channel, tl.load(bn_mean + channel, mask=writes, other=0.0), mask=writes)
        tl.store(moments + channels + channel, tl.load(bn_variance + channel, mask=writes, other=0.0), mask=writes)
        tl.store(moments + 2 * channels + channel, tl.zeros_like(first), mask=writes)
    norm = _norm_of(channel, real, bn_mean, bn_variance, bn_residue, bn_weight, bn_bias, bn_epsilon, normed)
    gates = (cweight, cbias, sweight, sbias, gn_weight, gn_bias)
    branch = _branch_of(channel, real, gates, group_channels, split, channel_gate, spatial_gate)
    centre, _, _, _, slope, level = _numbers_of(first, offset, variance, norm, branch, gn_epsilon, spatial_gate)
    lines = _lines_of(norm, centre, slope, level)
    if looped:
        # In reverse order, as the last tiles are still in the cache.
        count = tl.cdiv(end - begin, tile_width)
        for i in range(0, count):
            position = begin + (count - 1 - i) * tile_width + tl.arange(0, tile_width)
            inside = position < end
            value = _read(x, position, inside, here, sizes, channels_last, paired)
            _write_result(out, value, shortcut, lines, position, inside, here, sizes, channels_last, normed)
    else:
        _write_result(out, value, shortcut, lines, position, inside, here, sizes, channels_last, normed)


@triton.jit
def _read_gradient(grad_out, out, passed, position, inside, here, sizes, channels_last: tl.constexpr):
    """Returns the gradient of y, masked if a ReLU follows; the masked gradient is written to `passed` if given."""
    _, place, _, real = here
    at = _in_image(place, position, sizes, channels_last)
    there = real[:, None] & inside[None, :]
    grad = tl.load(grad_out + at, mask=there, other=0.0)
    if out is not None:
        grad = tl.where(tl.load(out + at, mask=there, other=0.0).to(tl.float32) <= 0.0, 0.0, grad).to(grad.dtype)
        if passed is not None:
            tl.store(passed + at, grad, mask=there)
    return grad.to(tl.float32)


@triton.jit
def _products(value, grad, lines, normed: tl.constexpr):
    """Returns dy s, D and x - centre."""
    gate = _gate_of(value, lines)
    gated = grad * gate
    return gated, gated * _normalised(value, lines, normed) * (1.0 - gate), value - lines[3][:, None]


@triton.jit
def _gradient(gated, through, distance, scale, c0, c1, c2):
    """Returns the gradient of x."""
    return (gated + through * c1[:, None] + (distance * c2[:, None] + c0[:, None])) * scale[:, None]


@triton.jit
def backward_kernel(
    grad_out,
    x,
    out,
    grad_x,
    grad_shortcut,
    rows,
    sums,
    linear,
    batch_linear,
    bn_mean,
    bn_variance,
    bn_residue,
    bn_weight,
    bn_bias,
    cweight,
    cbias,
    sweight,
    sbias,
    gn_weight,
    gn_bias,
    permutation,
    images,
    channel_steps,
    position_steps,
    group_channels,
    split,
    span,
    parts,
    gn_epsilon,
    bn_epsilon,
    channel_align: tl.constexpr,
    position_align: tl.constexpr,
    channels_last: tl.constexpr,
    shuffle_groups: tl.constexpr,
    paired: tl.constexpr,
    tile_rows: tl.constexpr,
    tile_width: tl.constexpr,
    looped: tl.constexpr,
    channel_gate: tl.constexpr,
    spatial_gate: tl.constexpr,
    normed: tl.constexpr,
    sums_up: tl.constexpr,
    writes: tl.constexpr,
):
    """Processes `span` positions: computes their sums (`sums_up`), their gradient of x (`writes`), or both.

    Both are possible only if the span is the whole row and no sums over other images are needed. The sums
    (2 or 4, parts, B, C) are those of D, D (x - centre), and for a batch norm also dy s and dy s (x - centre). If the
    kernel only writes, it reads c0 and c2 from `linear` (2, B, C), and the terms that a batch norm subtracts from
    `batch_linear` (2, C).
    """
    channels, positions = channel_steps * channel_align, position_steps * position_align
    sizes = (channels, channel_steps * (channel_align // 2), positions)
    image, here = _here(permutation, channels, shuffle_groups, tile_rows)
    _, _, channel, real = here
    first = _first_of(x, image, channel, real, channels, positions, channels_last)
    start = image.to(tl.int64) * channels * positions
    x += start
    grad_out += start
    grad_x += start
    if out is not None:
        out += start
        grad_shortcut += start
    part = tl.program_id(1)
    begin = part * span
    end = tl.minimum(begin + span, positions)
    position = begin + tl.arange(0, tile_width)
    inside = position < end
    if not looped:
        value = _read(x, position, inside, here, sizes, channels_last, paired)
        grad = _read_gradient(grad_out, out, grad_shortcut, position, inside, here, sizes, channels_last)
    row = image * channels + channel
    offset = tl.load(rows + row, mask=real, other=0.0)
    variance = tl.load(rows + images * channels + row, mask=real, other=0.0)
    norm = _norm_of(channel, real, bn_mean, bn_variance, bn_residue, bn_weight, bn_bias, bn_epsilon, normed)
    gates = (cweight, cbias, sweight, sbias, gn_weight, gn_bias)
    branch = _branch_of(channel, real, gates, group_channels, split, channel_gate, spatial_gate)
    centre, residue, _, inverse, slope, level = _numbers_of(
        first, offset, variance, norm, branch, gn_epsilon, spatial_gate
    )
    c1 = _through_gate(branch, inverse, positions, spatial_gate)
    lines = _lines_of(norm, centre, slope, level)
    if not looped:
        gated, through, distance = _products(value, grad, lines, normed)
    count = tl.cdiv(end - begin, tile_width)
    if sums_up:
        if looped:
            shape: tl.constexpr = (tile_rows, tile_width)
            lanes_d, lanes_dx = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
            lanes_y, lanes_yx = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
            for i in range(0, count):
                position = begin + i * tile_width + tl.arange(0, tile_width)
                inside = position < end
                value = _read(x, position, inside, here, sizes, channels_last, paired)
                grad = _read_gradient(grad_out, out, grad_shortcut, position, inside, here, sizes, channels_last)
                gated, through, distance = _products(value, grad, lines, normed)
                lanes_d += through
                lanes_dx += through * distance
                if normed:
                    lanes_y += gated
                    lanes_yx += gated * distance
        else:
            lanes_d, lanes_dx = through, through * distance
            lanes_y, lanes_yx = gated, gated * distance
        d, dx = _moved(tl.sum(lanes_d, 1)), _moved(tl.sum(lanes_dx, 1))
        tl.store(sums + _part_at(0, part, image, channel, parts, images, channels), d, mask=real)
        tl.store(sums + _part_at(1, part, image, channel, parts, images, channels), dx, mask=real)
        if normed:
            y, yx = _moved(tl.sum(lanes_y, 1)), _moved(tl.sum(lanes_yx, 1))
            tl.store(sums + _part_at(2, part, image, channel, parts, images, channels), y, mask=real)
            tl.store(sums + _part_at(3, part, image, channel, parts, images, channels), yx, mask=real)
    if writes:
        if sums_up:
            c0, c2 = _linear_part(d, dx - d * residue, c1, residue, inverse, norm, branch, positions, spatial_gate)
        else:
            c0 = tl.load(linear + row, mask=real, other=0.0)
            c2 = tl.load(linear + images * channels + row, mask=real, other=0.0)
            if batch_linear is not None:
                factor = tl.load(batch_linear + channels + channel, mask=real, other=0.0)
                constant = tl.load(batch_linear + channel, mask=real, other=0.0)
                c0 -= constant + factor * ((centre - norm[1]) - norm[2])
                c2 -= factor
        c0, c1, c2 = _moved(c0), _moved(c1), _moved(c2)
        if looped:
            for i in range(0, count):
                position = begin + (count - 1 - i) * tile_width + tl.arange(0, tile_width)
                inside = position < end
                value = _read(x, position, inside, here, sizes, channels_last, paired)
                # Masked again, as `grad_shortcut` may not be visible yet to the other threads of the program.
                grad = _read_gradient(grad_out, out, None, position, inside, here, sizes, channels_last)
                gated, through, distance = _products(value, grad, lines, normed)
                tile = _gradient(gated, through, distance, lines[0], c0, c1, c2)
                _write(grad_x, tile, position, inside, here, sizes, channels_last, paired)
        else:
            tile = _gradient(gated, through, distance, lines[0], c0, c1, c2)
            _write(grad_x, tile, position, inside, here, sizes, channels_last, paired)


# --- gradients of parameters


@triton.jit
def channels_kernel(
    x,
    rows,
    sums,
    linear,
    batch_linear,
    totals,
    grad_bn,
    bn_mean,
    bn_variance,
    bn_residue,
    bn_weight,
    bn_bias,
    cweight,
    cbias,
    sweight,
    sbias,
    gn_weight,
    gn_bias,
    images,
    channels,
    positions,
    group_channels,
    split,
    parts,
    gn_epsilon,
    bn_epsilon,
    channels_last: tl.constexpr,
    channel_gate: tl.constexpr,
    spatial_gate: tl.constexpr,
    normed: tl.constexpr,
    tile_images: tl.constexpr,
    tile_channels: tl.constexpr,
):
    """Sums the contributions of rows to the gradients of parameters over images, from the sums of `backward_kernel`.

    Writes `totals` (2, C) in float64, the gradients of weight and bias of F_c before summation over groups; the
    gradients of the batch norm; and `linear` and `batch_linear` for a `backward_kernel` that only writes.
    """
    channel = (tl.program_id(0) * tile_channels + tl.arange(0, tile_channels))[None, :]
    there = channel < channels
    shape: tl.constexpr = (tile_images, tile_channels)
    norm = _norm_of(channel, there, bn_mean, bn_variance, bn_residue, bn_weight, bn_bias, bn_epsilon, normed)
    gates = (cweight, cbias, sweight, sbias, gn_weight, gn_bias)
    branch = _branch_of(channel, there, gates, group_channels, split, channel_gate, spatial_gate)
    scale, origin, lacking = norm[0], norm[1], norm[2]
    pooled, spatial, weight = branch[0], branch[1], branch[2]
    total_weight, total_bias = tl.zeros(shape, tl.float64), tl.zeros(shape, tl.float64)
    total_u, total_ux = tl.zeros(shape, tl.float64), tl.zeros(shape, tl.float64)
    for begin in range(0, images, tile_images):
        image = (begin + tl.arange(0, tile_images))[:, None]
        real = (image < images) & there
        row = image * channels + channel
        first = _first_of(x, image, channel, real, channels, positions, channels_last)
        offset = tl.load(rows + row, mask=real, other=0.0)
        variance = tl.load(rows + images * channels + row, mask=real, other=0.0)
        centre, residue, mean, inverse, _slope, _level = _numbers_of(
            first, offset, variance, norm, branch, gn_epsilon, spatial_gate
        )
        d, dx = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
        y, yx = tl.zeros(shape, tl.float32), tl.zeros(shape, tl.float32)
        for part in range(0, parts):
            d += tl.load(sums + _part_at(0, part, image, channel, parts, images, channels), mask=real, other=0.0)
            dx += tl.load(sums + _part_at(1, part, image, channel, parts, images, channels), mask=real, other=0.0)
            if normed:
                y += tl.load(sums + _part_at(2, part, image, channel, parts, images, channels), mask=real, other=0.0)
                yx += tl.load(sums + _part_at(3, part, image, channel, parts, images, channels), mask=real, other=0.0)
        dx -= d * residue
        yx -= y * residue
        c1 = _through_gate(branch, inverse, positions, spatial_gate)
        if linear is not None:
            c0, c2 = _linear_part(d, dx, c1, residue, inverse, norm, branch, positions, spatial_gate)
            tl.store(linear + row, c0, mask=real)
            tl.store(linear + images * channels + row, c2, mask=real)
        if spatial_gate == "instance":
            of_spatial = scale * inverse * dx
            of_u = tl.where(spatial, 0.0, weight * d)
            # c0, c1 and c2 cancel in the sums of an instance norm, except for the effect of its epsilon.
            of_ux = c1 * dx * tl.where(spatial, inverse * inverse * gn_epsilon, 1.0)
        else:
            of_spatial = scale * dx + mean * d
            of_u = weight * d
            of_ux = c1 * dx
        of_weight = tl.where(pooled, d * mean, tl.where(spatial, of_spatial, 0.0))
        total_weight += tl.where(real, of_weight, 0.0)
        total_bias += tl.where(real & (pooled | spatial), d, 0.0)
        if normed:
            u = y + of_u
            total_u += tl.where(real, u, 0.0)
            total_ux += tl.where(real, yx + of_ux + ((centre - origin) + (residue - lacking)) * u, 0.0)
    tl.store(totals + channel, tl.sum(total_weight, 0)[None, :], mask=there)
    tl.store(totals + channels + channel, tl.sum(total_bias, 0)[None, :], mask=there)
    if normed:
        u, ux = tl.sum(total_u, 0)[None, :], tl.sum(total_ux, 0)[None, :]
        variance = tl.load(bn_variance + channel, mask=there, other=1.0).to(tl.float64) + bn_epsilon
        tl.store(grad_bn + channel, (ux / tl.sqrt(variance)).to(tl.float32), mask=there)
        tl.store(grad_bn + channels + channel, u.to(tl.float32), mask=there)
        if batch_linear is not None:
            # The gradients through the mean and variance of the batch: a constant, and a term linear in x.
            tl.store(batch_linear + channel, (u / positions / images).to(tl.float32), mask=there)
            tl.store(batch_linear + channels + channel, (ux / variance / positions / images).to(tl.float32), mask=there)


@triton.jit
def gates_kernel(
    totals,
    grad_gates,
    sweight,
    gn_weight,
    gn_bias,
    channels,
    group_channels,
    split,
    gate_width,
    spatial_gate: tl.constexpr,
    tile_groups: tl.constexpr,
    tile_within: tl.constexpr,
):
    """Sums `totals` over groups, which share the parameters of the gates, into their gradients (6, `gate_width`)."""
    within = tl.program_id(0) * tile_within + tl.arange(0, tile_within)
    there = within < group_channels
    of_weight = tl.zeros((tile_groups, tile_within), tl.float64)
    of_bias = tl.zeros((tile_groups, tile_within), tl.float64)
    for begin in range(0, channels // group_channels, tile_groups):
        channel = (begin + tl.arange(0, tile_groups))[:, None] * group_channels + within[None, :]
        real = (channel < channels) & there[None, :]
        of_weight += tl.load(totals + channel, mask=real, other=0.0)
        of_bias += tl.load(totals + channels + channel, mask=real, other=0.0)
    w, b = tl.sum(of_weight, 0), tl.sum(of_bias, 0)
    pooled, spatial = there & (within < split), there & (within >= split)
    tl.store(grad_gates + within, w.to(tl.float32), mask=pooled)
    tl.store(grad_gates + gate_width + within, b.to(tl.float32), mask=pooled)
    at = grad_gates + within - split
    if spatial_gate == "instance":
        factor = _parameter(sweight, within - split, spatial, 1.0)
        scale = _parameter(gn_weight, within - split, spatial, 1.0)
        shift = _parameter(gn_bias, within - split, spatial, 0.0)
        tl.store(at + 2 * gate_width, (w * scale + b * shift).to(tl.float32), mask=spatial)
        tl.store(at + 4 * gate_width, (w * factor).to(tl.float32), mask=spatial)
        tl.store(at + 5 * gate_width, (b * factor).to(tl.float32), mask=spatial)
    else:
        tl.store(at + 2 * gate_width, w.to(tl.float32), mask=spatial)
    tl.store(at + 3 * gate_width, b.to(tl.float32), mask=spatial)
