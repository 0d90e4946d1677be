from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.analysis.networks import TrainedNetworks
from ablations.analysis.observe import Observation
from ablations.reporting.figures.subfeatures import draw_subfeatures, subfeature_scores, subfeatures_frame
from tests.builders.drawings import LONG, SHORT, STRANGE, UNBROKEN, cut, legend_of, overlapping, points, written
from tests.builders.kept import GROUPS, trained


def observation_of(seed: int, images: int, channels: int, classes: int, groups: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, channels)).astype(np.float32)
    weight = random.normal(size=(classes, channels)).astype(np.float32)
    bias = random.normal(size=classes).astype(np.float32)
    return Observation([], features, weight, features @ weight.T + bias, groups)


def scores_by_loops(observation: Observation, labels: Sequence[int], groups: int) -> list[float]:
    """The scores by explicit loops over images and classes."""
    features, weight = observation.features.astype(np.float64), observation.weight.astype(np.float64)
    width = features.shape[1] // groups
    scores = []
    for group in range(groups):
        own = range(group * width, (group + 1) * width)
        right = 0
        for image, label in enumerate(labels):
            logits = [sum(features[image, c] * row[c] for c in own) for row in weight]
            right += logits.index(max(logits)) == label
        scores.append(100 * right / len(labels))
    return scores


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4), st.integers(2, 5), st.integers(1, 3))
def test_scores_agree_with_explicit_loops(seed: int, images: int, groups: int, classes: int, width: int) -> None:
    observation = observation_of(seed, images, groups * width, classes)
    labels = np.random.default_rng(seed).integers(0, classes, images)
    scores = subfeature_scores(observation, labels, groups)
    assert scores.tolist() == pytest.approx(scores_by_loops(observation, labels.tolist(), groups))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]))
def test_the_groups_contributions_add_up_to_the_logits_without_the_bias(seed: int, groups: int) -> None:
    observation = observation_of(seed, 6, 8, 4)
    total = np.zeros((6, 4))
    for group in range(groups):  # all other channels are 0
        kept = np.zeros(8, dtype=np.float32)
        kept[group * 8 // groups : (group + 1) * 8 // groups] = 1
        alone = Observation([], observation.features * kept, observation.weight, observation.logits, groups)
        total += alone.features.astype(np.float64) @ alone.weight.T.astype(np.float64)
        for label in range(4):
            labels = np.full(6, label)
            assert subfeature_scores(alone, labels, 1)[0] == subfeature_scores(observation, labels, groups)[group]
    bias = observation.logits - total
    assert np.abs(bias - bias[0]).max() < 1e-5  # the same for each image


def test_one_group_scores_as_the_network_without_its_bias() -> None:
    observation = observation_of(0, 50, 12, 5)
    labels = np.random.default_rng(1).integers(0, 5, 50)
    expected = 100 * ((observation.features @ observation.weight.T).argmax(1) == labels).mean()
    assert subfeature_scores(observation, labels, 1).tolist() == [expected]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetworks:
    return trained(tmp_path_factory.mktemp("groups"), *GROUPS, "sweep.factors.attention.groups=[2,4,8]")


def test_each_variant_has_its_groups_and_the_whole_network(networks: TrainedNetworks) -> None:
    frame = subfeatures_frame(networks)
    labels = networks.sample.labels.numpy()
    assert frame.groupby("variant", sort=False)["group"].apply(list).to_dict() == {
        "none": list(range(-1, 8)),  # the most common number, the largest of tied ones
        "groups=2": [-1, 0, 1],
        "groups=4": [-1, 0, 1, 2, 3],
        "groups=8": list(range(-1, 8)),
    }
    assert set(frame["images"]) == {160}
    shuffles = frame.drop_duplicates("variant").set_index("variant")["shuffle"].to_dict()
    assert shuffles == {"none": "", "groups=2": "on", "groups=4": "on", "groups=8": "on"}
    for variant, own in frame.groupby("variant"):
        observation = networks.observations[str(variant)]
        whole = own.loc[own["group"] == -1, "top1"].item()
        assert whole == pytest.approx(100 * np.mean(observation.logits.argmax(1) == labels))
        parts = scores_by_loops(observation, labels.tolist(), own["groups"].iloc[0])
        assert own.loc[own["group"] >= 0, "top1"].tolist() == pytest.approx(parts, abs=100 / 160)  # a tie


def test_the_shuffle_is_named_and_the_most_common_number_of_groups_is_used(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    variants = "sweep.variants={none: {attention: none}, se: {attention: se}, many: {attention.groups: 8}}"
    overrides = ("sweep=shuffle", "attention.groups=4", variants)
    made = trained(tmp_path_factory.mktemp("shuffle"), *overrides)
    frame = subfeatures_frame(made).drop_duplicates("variant").set_index("variant")
    for variant in made.variants:
        if variant.attention["name"] == "sa":
            assert frame.loc[variant.name, "shuffle"] == ("on" if variant.attention["shuffle"] else "off")
            assert frame.loc[variant.name, "groups"] == variant.attention["groups"]
    assert {"on", "off"} <= set(frame["shuffle"])
    assert (frame.loc["none", "shuffle"], frame.loc["none", "groups"]) == ("", 4)
    assert (frame.loc["se", "shuffle"], frame.loc["se", "groups"]) == ("", 4)


@pytest.mark.parametrize(
    "overrides",
    [
        ("sweep=rivals", "sweep.factors.attention=[se]"),
        ("sweep=groups", "sweep.factors.attention.groups=[2]", "attention.stages=first"),
        ("sweep=groups", "sweep.factors.attention.groups=[2]", "attention.position=pre"),
    ],
)
def test_without_shuffle_attention_at_the_end_there_is_nothing_to_show(
    tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]
) -> None:
    frame = subfeatures_frame(trained(tmp_path_factory.mktemp("none"), *overrides))
    assert frame.empty
    assert list(frame.columns) == ["variant", "shuffle", "groups", "group", "images", "top1"]


def frame_of(names: Sequence[str], groups: int, tops: Sequence[float]) -> pd.DataFrame:
    rows = []
    for number, name in enumerate(names):
        place = {"variant": name, "shuffle": ("on", "off", "")[number % 3], "groups": groups, "images": 160}
        whole, *parts = (tops[(number + group) % len(tops)] for group in range(groups + 1))
        rows += [place | {"group": group - 1, "top1": top1} for group, top1 in enumerate([whole, *parts])]
    return pd.DataFrame(rows)


def test_the_figure_shows_each_group_their_mean_and_the_whole_network() -> None:
    drawn = draw_subfeatures(frame_of(["a", "b", "c"], 2, [10.0, 20.0, 40.0, 60.0]), 5, "caption")
    (axes,) = drawn.axes
    found = points(axes)
    assert {(10, 0), (20, 1), (40, 2)} <= found.keys()  # whole networks
    assert {(30, 0), (50, 1), (35, 2)} <= found.keys()  # means
    (chance,) = axes.lines
    assert list(chance.get_xdata()) == [20, 20]  # type: ignore[arg-type]
    for row, tops in enumerate([[20, 40], [40, 60], [60, 10]]):
        assert sorted(x for x, y in found if 0 < abs(y - row) < 0.3) == sorted(tops)
    assert legend_of(drawn) == [
        "chance", "sub-feature, shuffle on", "sub-feature, shuffle off", "without shuffle attention", "their mean",
        "the whole network",
    ]  # fmt: skip
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (2 groups)", "b (2 groups)", "c (2 groups)"]
    assert axes.get_ylim() == (2.5, -0.5)
    assert cut(drawn) == overlapping(drawn) == []


def test_equal_scores_do_not_overlap() -> None:
    drawn = draw_subfeatures(frame_of(["a"], 8, [50.0]), 10, "caption")
    places = np.sort([y for _, y in points(drawn.axes[0]) if y])  # the mean and the whole network are at 0
    assert len(places) == 8
    assert np.diff(places).min() > 0.01


@STRANGE
@pytest.mark.parametrize(
    ("names", "groups", "tops", "classes"),
    [
        (SHORT[:1], 1, [0.0], 2),
        (SHORT[:1], 64, [100.0], 1000),
        (SHORT, 8, [0.0, 100.0], 10),
        (SHORT[:3], 1, [50.0], 2),
        (LONG, 64, [10.0, 30.0, 99.0], 100),
        (LONG[:1], 2, [0.0], 1000),
        (UNBROKEN, 4, [3.0, 4.0], 30),
    ],
)
def test_unusual_studies_are_drawn_and_nothing_is_cut(
    names: list[str], groups: int, tops: list[float], classes: int
) -> None:
    drawn = draw_subfeatures(frame_of(names, groups, tops), classes, "A caption of many words. " * 12)
    assert cut(drawn) == []
    assert overlapping(drawn) == []
    (axes,) = drawn.axes
    low, high = axes.get_xlim()
    assert low <= 0
    assert high >= max(tops)
    assert max(tick.get_loc() for tick in axes.xaxis.get_major_ticks() if tick.get_loc() <= high) <= 100
    assert axes.get_window_extent().width > 1.5 * drawn.dpi  # inches
    shown = {"".join(text.split()) for text in written(drawn)}
    assert {"".join(f"{name} ({groups} group{'s' if groups > 1 else ''})".split()) for name in names} <= shown
