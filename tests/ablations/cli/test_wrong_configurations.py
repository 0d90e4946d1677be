"""A thousand invalid configurations: each ends with exit status 2 and one message, without training or writing files.

Configurations are invalid by construction: each strategy violates a bound, a type, a name or a rule between options,
independently of the suite's own checks. Options are collected from the configuration classes, so new ones are tested
automatically; only options of type `Any` need invalid values here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations import cli
from ablations.benchmarking.execute import Benchmark
from ablations.config import OWNERS, SHOWN_NAMES
from ablations.config.compose import compose_config
from ablations.config.groups import GROUPS, group_choices
from tests.conftest import Command

VERBS = ("run", "plan", "analyze", "bench", "claims")
DESIGNED = ("run", "plan", "analyze", "bench")  # verbs that make a design
STUDIED = ("run", "plan", "analyze")  # verbs with a named study and a data set
STORED = ("run", "plan", "analyze", "claims")  # verbs that open a database
# Options that only some verbs have.
OWNED = {
    "bench": ("bench",), "plan": ("plan",), "figures": ("analyze",), "sync": ("analyze",),
    "recipes": ("plan", "run", "analyze"), "reuse": ("plan", "run"), "against": ("analyze",),
    "export": ("run", "analyze"),
}  # fmt: skip
FREE = ("sweep.factors", "sweep.variants", "tune.space")  # mappings whose keys users choose
EXAMPLES = int(os.environ.get("ABLATIONS_WRONG_ONES", "1000"))  # higher values search for new failures

# Implementation details that messages must not contain.
INSIDE = re.compile(
    r"Traceback|ListConfig|DictConfig|AnyNode|NoneType|Union\[|Optional\[|Dict\[|List\[|omegaconf|OmegaConf|<class|"
    r"object at 0x|full_key|object_type|\bNone\b|\bTrue\b|\bFalse\b|Exception|Error\b|no viable|mismatched input|"
    r"token recognition"
)


@dataclass(frozen=True)
class Leaf:
    """An option: name on the command line, type, bounds, default, and overrides under which it exists."""

    name: str
    hint: Any
    allowed: Any
    default: Any
    context: tuple[str, ...]

    @property
    def verbs(self) -> tuple[str, ...]:
        return OWNED.get(self.name.partition(".")[0], VERBS)


@dataclass(frozen=True)
class Wrong:
    """Arguments that are invalid together.

    The message must contain one of `named`. `touches` are the options that must not be set elsewhere on the line,
    because that could correct the error.
    """

    arguments: tuple[str, ...]
    named: tuple[str, ...]
    touches: tuple[str, ...]
    verbs: tuple[str, ...] = VERBS

    def meets(self, other: Sequence[str]) -> bool:
        return any(
            first == second or first.startswith(f"{second}.") or second.startswith(f"{first}.")
            for first in self.touches
            for second in other
        )


@dataclass(frozen=True)
class CommandLine:
    """A verb with arguments, and the names of which the message must contain one."""

    verb: str
    arguments: tuple[str, ...]
    named: tuple[str, ...]


# The options


def walk(node: Any, prefix: str, context: tuple[str, ...]) -> Iterator[Leaf]:
    hints = get_type_hints(type(node))
    for declared in fields(node):
        value, name = getattr(node, declared.name), prefix + SHOWN_NAMES.get(declared.name, declared.name)
        if is_dataclass(value):
            yield from walk(value, f"{name}.", context)
        else:
            yield Leaf(name, hints[declared.name], declared.metadata, value, context)


@cache
def every_option() -> tuple[Leaf, ...]:
    """Returns all options under any choice of any group."""
    default = compose_config([])
    leaves = list(walk(default, "", ()))
    for group in GROUPS:
        kinds = {type(getattr(default, group))}
        for choice in group_choices()[group]:
            node = getattr(compose_config([f"{group}={choice}"]), group)
            if type(node) not in kinds:
                kinds.add(type(node))
                leaves += walk(node, f"{group}.", (f"{group}={choice}",))
    return tuple(leaves)


@cache
def options() -> tuple[Leaf, ...]:
    """Returns all options except the names of groups' choices, which cannot be set."""
    return tuple(leaf for leaf in every_option() if leaf.name not in [f"{group}.name" for group in GROUPS])


@cache
def names() -> frozenset[str]:
    valid = {leaf.name for leaf in every_option()} | set(GROUPS)
    return frozenset(valid | {name.rpartition(".")[0] for name in valid if "." in name})


def quoted(text: str) -> str:
    """Returns any text as a quoted value in Hydra's grammar."""
    body = re.sub(r"(\\+)$", r"\1\1", re.sub(r'(\\*)"', r'\1\1\\"', text))
    return f'"{body}"'


# Invalid values

WORDS = ("many", "seven", "x", "-", "auto!", "none of it", "1.2.3", "0x", "¾", "七", "½")
ODD_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=12)
LISTS = ("[]", "[1]", "[a,b]", "[[1]]", "[null]", "[{a: 1}]")
SETTINGS = ("{}", "{a: 1}", "{a: {b: [1]}}", "{1: 2}", "{null: x}", "{true: x}")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def misspelt(word: str) -> st.SearchStrategy[str]:
    """Misspells a word: a letter omitted, doubled, swapped, capitalized or foreign."""
    end = len(word)
    at = st.integers(0, max(0, end - 1))
    return st.one_of(
        at.map(lambda i: word[:i] + word[i + 1 :]),
        at.map(lambda i: word[: i + 1] + word[i:]),
        at.map(lambda i: word[:i] + word[i : i + 2][::-1] + word[i + 2 :]),
        at.map(lambda i: word[:i] + "é" + word[i:]),
        st.sampled_from([word.upper(), word.title(), f"{word}s", f"{word}-{word}", word * 2, word * 300]),
    )


def numbers_for(leaf: Leaf) -> list[st.SearchStrategy[str]]:
    """Returns numbers outside an option's bounds, including the closest ones."""
    low, above, high = (leaf.allowed.get(name) for name in ("minimum", "above", "maximum"))
    whole = float not in (leaf.hint, *get_args(leaf.hint))
    wrong: list[st.SearchStrategy[str]] = [st.sampled_from(["nan", ".nan", "inf", "-inf", "1e999"])]
    if low is not None:
        wrong.append(st.just(str(int(low) - 1) if whole else repr(math.nextafter(low, -math.inf))))
        wrong.append(st.integers(1, 10**30).map(lambda far: str(int(low) - far)))
    if above is not None:
        wrong.append(st.sampled_from([repr(above), repr(above - 1), "-0.0"] if above == 0 else [repr(above)]))
    if high is not None:
        wrong.append(st.just(str(int(high) + 1) if whole else repr(math.nextafter(high, math.inf))))
        wrong.append(st.integers(1, 10**30).map(lambda far: str(math.ceil(high) + far)))
        wrong.append(st.sampled_from(["9" * 400, "9" * 5000, "1e300"]))
    if not whole:
        wrong.append(st.sampled_from(["9" * 400, "-" + "9" * 400]))
    else:
        wrong.append(st.sampled_from(["1.5", "0.1", "1e-3", "-2.5"]))
    return wrong


def values_for(leaf: Leaf) -> st.SearchStrategy[str]:
    """Returns invalid values of an option."""
    hint, choices, words = leaf.hint, leaf.allowed.get("choices"), leaf.allowed.get("words") or ()
    if hint is Any:
        return st.sampled_from(ANYTHING[leaf.name])
    if get_origin(hint) is dict:
        return st.sampled_from([*WORDS[:4], *LISTS, "3", "1.5", "true", "null"])
    if get_origin(hint) is list:
        wrong = [st.sampled_from(["3", "1.5", "true", "null", *SETTINGS, "[[1]]", "[{a: 1}]"])]
        if choices:
            broken = st.sampled_from(choices).flatmap(misspelt).filter(lambda word: word not in choices)
            wrong += [broken.map(lambda word: f"[{quoted(word)}]"), st.sampled_from(["[null]", "[1]", "[true]"])]
            wrong += [] if leaf.allowed["may_be_empty"] else [st.just("[]")]
            wrong += [broken.map(lambda word: f"[{choices[0]},{quoted(word)}]"), broken.map(quoted)]
        return st.one_of(wrong)
    common = st.sampled_from([*LISTS, *SETTINGS, "null", "???"])
    if hint is bool:
        right = {"y", "n", "yes", "no", "on", "off", "true", "false", "0", "1", ""}
        texts = ODD_TEXT.filter(lambda text: text.strip().casefold() not in right and not is_number(text))
        return st.one_of(
            common, st.sampled_from(["maybe", "2", "-1", "1.5", "7", "nan", "tru", "9" * 400]), texts.map(quoted)
        )
    if hint is str:
        if not choices:
            return common
        broken = st.sampled_from(choices).flatmap(misspelt).filter(lambda word: word not in choices)
        odd = ODD_TEXT.filter(lambda text: text not in choices)
        return st.one_of(common, broken.map(quoted), odd.map(quoted), st.sampled_from(["7", "1.5", "true", "''"]))
    assert {int, float} & {hint, *get_args(hint)}, f"{leaf.name} is of a type that this test does not know: {hint}"
    texts = st.one_of(st.sampled_from(WORDS), ODD_TEXT).filter(
        lambda text: not is_number(text) and text.strip() not in words
    )
    return st.one_of(common, texts.map(quoted), st.sampled_from(["true", "false", "''"]), *numbers_for(leaf))


# Invalid values of options of type `Any`.
ANYTHING = {
    "figures": ("null", "nothing", "[]", "[forest,nothing]", "[-all]", "[-cams]", "{a: 1}", "7", "''", "[[forest]]"),
    "against": ("[]", "[none,none]", "[a,b,c]", "{a: 1}", "[[a]]"),
    "data.classes": ("null", "-1", "1.5", "[]", "{a: 1}", "true", "[[a]]", "nan"),
}

# Single errors


@st.composite
def a_wrong_value(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from(options()))
    sign = draw(st.sampled_from(["", "", "", "+", "++"]))
    argument = f"{sign}{leaf.name}={draw(values_for(leaf))}"
    touches = tuple(override.partition("=")[0] for override in leaf.context) or (leaf.name,)
    # Classes are unknown without the images.
    verbs = () if leaf.name == "data.classes" else leaf.verbs
    return Wrong((*leaf.context, argument), (leaf.name,), touches, verbs)


@st.composite
def a_wrong_name(draw: st.DrawFn) -> Wrong:
    name = draw(st.sampled_from(sorted(names())))
    last = name.rpartition(".")[2]
    broken = draw(
        st.one_of(
            misspelt(name),
            st.sampled_from(
                [f".{name}", f"{name}.", name.replace(".", "..", 1), f"{name}.x", f"x.{name}", f"{name}.{last}",
                 f"{name} ", f"{name}[0]", f"{name}/x", f"{name}:x", f"{name}-x", f"hydra.{name}", f"{name}.0", "",
                 ".", "..", "_target_", "hydra", "hydra.run.dir", "__class__", f"{name}.__class__"]
            ),
        )
    )  # fmt: skip
    if broken.rstrip() in names() or broken.startswith(tuple(f"{root}." for root in FREE)):
        broken = f"{name}_{last}"
    if broken.startswith(tuple(f"{root}." for root in FREE)):
        broken = "x"
    sign = draw(st.sampled_from(["", "", "+", "++", "~"]))
    value = draw(st.sampled_from(["=3", "=auto", "=[1,2]", "={a: 1}", "=", "=null", ""]))
    return Wrong((f"{sign}{broken}{value}",), (broken.strip()[:40] or "=",), (broken or "=",))


@st.composite
def an_unknown_choice(draw: st.DrawFn) -> Wrong:
    group = draw(st.sampled_from(GROUPS))
    choices = group_choices()[group]
    broken = st.sampled_from(choices).flatmap(misspelt).filter(lambda word: word not in choices)
    others = [word for other in GROUPS if other != group for word in group_choices()[other] if word not in choices]
    odd = ["", "null", "3", "1.5", "true", "[]", f"[{choices[0]}]", "{a: 1}", "{name: x}", "../x", "''", ".", "/", "*"]
    value = draw(st.one_of(broken.map(quoted), st.sampled_from(odd), st.sampled_from(others)))
    return Wrong((f"{group}={value}",), (f"{group}",), (group,), OWNED.get(group, VERBS))


@st.composite
def a_misused_group(draw: st.DrawFn) -> Wrong:
    group = draw(st.sampled_from(GROUPS))
    choice = draw(st.sampled_from(group_choices()[group]))
    argument = draw(
        st.sampled_from(
            [f"+{group}={choice}", f"~{group}", f"~{group}={choice}", f"{group}@{group}={choice}",
             f"{group}@x={choice}",
             f"{group}@={choice}", f"{group}@_global_={choice}", f"{group}@:x={choice}", f"{group}|x={choice}",
             f"{group}.name={choice}", f"{group}/x={choice}", f"{group}={choice},{choice}", f"{group}"]
        )
    )  # fmt: skip
    return Wrong((argument,), (group,), (group,), OWNED.get(group, VERBS))


@st.composite
def a_removed_option(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from(options()))
    sign, value = draw(st.sampled_from([("~", ""), ("~", "=1")]))
    return Wrong((*leaf.context, f"{sign}{leaf.name}{value}"), (leaf.name,), (leaf.name.partition(".")[0],), leaf.verbs)


@st.composite
def malformed_syntax(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from(options()))
    ending = draw(
        st.sampled_from(
            ["='open", '="open', "=[1", "=[1,", "=1]", "={a", "={a:", "={a: 1", "={a: 1}}", "=]", "=}", "=[", "={",
             "={,}",
             "=[,]", "=it's", "='a'b", "=,", "=1,", "=,1", "=[1 2", "=${", "=${a", "={{}}", "={[1]: 2}", "", ":3",
             "='a', 'b", '="', "='", "=${a}}{", "=[}", "={]", "='a\nb"]
        )
    )  # fmt: skip
    return Wrong((f"{leaf.name}{ending}",), (leaf.name,), (leaf.name,), leaf.verbs)


@st.composite
def several_values_at_once(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from(options()))
    value = draw(
        st.sampled_from(
            ["1,2", "a,b", "range(1,3)", "choice(1,2)", "interval(0,1)", "glob(*)", "shuffle(1,2)", "sort(2,1)",
             "tag(a, choice(1,2))", "int(x)", "nope(3)", "choice()", "range(x)", "float(x,y)", "json_str(3",
             "extend_list(1)"]
        )
    )  # fmt: skip
    if leaf.hint is str and not leaf.allowed.get("choices") and not any(sign in value for sign in ",*"):
        value = "1,2"  # the others are valid text
    return Wrong((f"{leaf.name}={value}",), (leaf.name,), (leaf.name,), leaf.verbs)


@st.composite
def an_invalid_interpolation(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from([leaf for leaf in options() if leaf.hint is not Any]))
    value = draw(
        st.sampled_from(
            ["${nope}", "${train.nope}", "${.nope}", "${..nope}", "${....nope}", "${oc.env:NO_SUCH_VARIABLE}",
             "${nope:3}",
             "${hydra:job.name}", "${hydra:}", "${}", "${.}", "${a:b:c}", "x${nope}", "'${nope}'", "[${nope}]",
             "{a: ${nope}}", "${train.epochs.x}", "${train.}", "${oc.select:nope}", "${oc.env:}", "${now:}",
             "${oc.decode:'['}", "${oc.dict.keys:nope}", "${oc.create:'{'}", f"${{{leaf.name}}}",
             f"${{{leaf.name}}}${{{leaf.name}}}", "${${nope}}", "${oc.deprecated:nope}", "${oc.env}", "${_x.y}"]
        )
    )  # fmt: skip
    # `${now:}` resolves to an empty text, which is valid.
    if value == "${now:}" and leaf.hint is str:
        value = "${nope}"
    context = leaf.context
    touches = tuple(override.partition("=")[0] for override in context) or (leaf.name,)
    return Wrong((*context, f"{leaf.name}={value}"), (leaf.name,), touches, leaf.verbs)


@st.composite
def circular_interpolations(draw: st.DrawFn) -> Wrong:
    numbers = [leaf for leaf in options() if leaf.hint in (int, float) and not leaf.context and leaf.verbs == VERBS]
    pair = draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=2, unique_by=lambda leaf: leaf.name))
    first, second = (leaf.name for leaf in pair)
    return Wrong((f"{first}=${{{second}}}", f"{second}=${{{first}}}"), (first, second), (first, second))


@st.composite
def an_unknown_flag(draw: st.DrawFn) -> Wrong:
    flag = draw(
        st.one_of(
            st.sampled_from(
                ["--hlep", "-x", "-", "--", "--multirun=1", "-m=x", "--cfg", "--config-name=x", "--config_dir=x",
                 "--help=1", "--version=1", "--versions",
                 "-h=3", "--info=x", "-cd=", "---", "--é", "--config-dir", "--config-dir=", "--resolve",
                 "-1"]
            ),
            st.text("abcdefghij-", min_size=4, max_size=20).map(lambda text: f"--x{text}"),
        )
    )  # fmt: skip
    return Wrong((flag,), (flag.partition("=")[0],), ("--config-dir",))


@st.composite
def an_option_of_another_verb(draw: st.DrawFn) -> Wrong:
    leaf = draw(st.sampled_from([leaf for leaf in options() if leaf.name.partition(".")[0] in OWNED]))
    root = leaf.name.partition(".")[0]
    sign = draw(st.sampled_from(["", "+", "++"]))
    argument = draw(st.sampled_from([f"{leaf.name}=3", leaf.name, f"{root}={{}}", f"{leaf.name}=true"]))
    return Wrong((sign + argument,), (root,), (root,), tuple(verb for verb in VERBS if verb not in OWNED[root]))


@st.composite
def an_unknown_factor(draw: st.DrawFn) -> Wrong:
    knobs = [
        leaf.name for leaf in every_option() if leaf.name.startswith(("attention.", "model.")) and not leaf.context
    ]
    valid = {*knobs, "attention", "model"}
    protocol = [leaf.name for leaf in options() if leaf.name.partition(".")[0] not in ("attention", "model", "sweep")]
    factor = draw(
        st.one_of(
            st.sampled_from(sorted(valid)).flatmap(misspelt).filter(lambda name: not set(". é") & set(name)),
            st.sampled_from(protocol),
            st.sampled_from(["attention.nope", "model.nope", "attention.groups.x", "x", "sweep.margin",
            "attention.name.x"]),
        ).filter(lambda name: name not in valid)
    )  # fmt: skip
    levels = draw(st.sampled_from(["[1,2]", "[a,b]", "[true,false]", "[1]"]))
    arguments = ("sweep=shuffle", f"sweep.factors.{factor}={levels}")
    return Wrong(arguments, (factor.partition(".")[0][:40],), DESIGN, DESIGNED)


DESIGN = ("sweep", "attention", "model", "data", "judge", "replicates", "baseline_replicates", "device", "measure",
          "train")  # fmt: skip
NARROWEST = 16  # channels of a CIFAR ResNet's first stage
FITTING = [number for number in range(1, NARROWEST // 2 + 1) if (NARROWEST // 2) % number == 0]


@st.composite
def invalid_levels(draw: st.DrawFn) -> Wrong:
    knobs = [leaf for leaf in options() if leaf.name.startswith("attention.") and not leaf.context]
    misfit = st.integers(2, 100).filter(lambda number: number not in FITTING).map(str)
    wrong: st.SearchStrategy[tuple[str, str]] = st.one_of(
        st.tuples(st.just("attention.groups"), misfit.map(lambda number: f"[{number}]")),
        st.tuples(st.just("attention.groups"), misfit.map(lambda number: f"[1,2,{number}]")),
        st.tuples(
            st.sampled_from([knob.name for knob in knobs]),
            st.sampled_from(["[]", "null", "3", "some", "{}", "[[1,2]]", "[{a: 1}]", "[null]", "''", "[nan]"]),
        ),
        *(
            st.tuples(st.just(knob.name), values_for(knob).filter(simple).map(lambda value: f"[{value}]"))
            for knob in knobs
        ),
        st.tuples(st.just("attention"), st.sampled_from(["[nope]", "[sa,nope]", "[]", "[1]", "[null]", "sa", "['']"])),
        st.tuples(st.just("model"), st.sampled_from(["[nope]", "[resnet8,nope]", "[]", "[1]", "[null]", "resnet8"])),
    )
    factor, levels = draw(wrong)
    arguments = ("sweep=groups", f"sweep.factors={{{nested(factor, levels)}}}")
    return Wrong(arguments, (factor,), DESIGN, DESIGNED)


def nested(name: str, value: str) -> str:
    root, _, last = name.partition(".")
    return f"{root}: {{{last}: {value}}}" if last else f"{root}: {value}"


def simple(value: str) -> bool:
    """Returns whether a value is a single level, and neither a collection nor missing."""
    return not value.startswith(("[", "{")) and value not in ("null", "???") and len(value) < 1000


@st.composite
def invalid_variants(draw: st.DrawFn) -> Wrong:
    setting, named = draw(
        st.sampled_from(
            [("sweep.variants.mine=3", "mine"), ("sweep.variants.mine=[1]", "mine"),
             ("sweep.variants.mine=null", "mine"),
             ("sweep.variants.mine=none", "mine"), ("sweep.variants.mine.attention=nope", "mine"),
             ("sweep.variants.mine.attention.groups=3", "mine"), ("sweep.variants.mine.attention.nope=3", "mine"),
             ("sweep.variants.mine.attention.groups=[1,2]", "mine"), ("sweep.variants.mine.train.epochs=3", "mine"),
             ("sweep.variants.mine.attention.norm=nope", "mine"), ("sweep.variants.mine.model=nope", "mine"),
             ("sweep.variants.mine.model.stem=cifar", "mine"), ("sweep.variants.mine.attention.stages=9", "mine"),
             ("sweep.variants.mine.attention.groups=null", "mine"), ("sweep.variants.mine.nope=1", "mine"),
             ("sweep.variants.mine.attention.position=middle", "mine"),
             ("sweep.variants={'': {attention: se}}", "sweep.variants"),
             ("sweep.variants={' ': {attention: se}}", "sweep.variants"),
             ("sweep.variants={1: {attention: se}}", "variants"),
             ("sweep.variants.twin.attention.groups=4", "twin"), ("sweep.variants.twin.attention=none", "twin"),
             ("sweep.variants.twin={}", "twin"), ("sweep.variants.none={attention: se}", "sweep.variants"),
             ("sweep.variants.mine={attention: {groups: 3}}", "mine"),
             ("sweep.variants.mine={attention: {}}", "mine"),
             ("~sweep.variants.nope", "nope"), ("~sweep.variants", "sweep.variants"), ("~sweep.factors",
             "sweep.factors"),
             ("~sweep.factors.attention.nope", "nope"), ("sweep.factors.attention.groups=[4,4]", "groups=4"),
             ("sweep.factors.attention.groups.x=[4]", "groups"), ("sweep.factors={}", "sweep.baseline")]
        )
    )  # fmt: skip
    if setting == "sweep.variants.twin={}":
        arguments: tuple[str, ...] = ("sweep=controls", setting)  # this sweep contains the base network
        named = "twin"
    elif setting == "sweep.variants.none={attention: se}":
        arguments, named = ("sweep=groups", "sweep.variants.none=[1]"), "none"
    elif setting == "sweep.factors={}":
        arguments, named = ("sweep=groups", setting, "sweep.variants={}"), "sweep"
    elif setting.endswith("{attention: {}}"):
        arguments = ("sweep=controls", setting)
    else:
        arguments = ("sweep=groups", setting)
    return Wrong(arguments, (named,), DESIGN, DESIGNED)


TOGETHER: tuple[Wrong, ...] = (
    *(Wrong((f"recipes={value}",), ("recipes",), ("recipes", *DESIGN), STUDIED)
    for value in ("quick", "[quick]", "[quick,quick]", "[quick,digits]", "[quik,cifar]", "[cifar10+,quick]", "[,]",
                  "[cifar+quick,digits]", "[null,quick]", "[[quick,cifar]]", "'[quick,cifar]'", "[groups,quick]",
                  "[quick,cifar,cifar+digits]")),
    *(Wrong(("recipes=[quick,cifar]", *others), named, ("recipes", *DESIGN), STUDIED) for others, named in (
        (("train=cifar",), ("train",)),
        (("sweep=search",), ("recipes",)),
        (("train.epochs=30", "train.batch_size=128", "train.learning_rate=0.4"), ("recipes",)),
        (("study=" + "x" * 99,), ("study",)),
        (("train.batch_size=3000",), ("train.batch_size",)),
    )),
    Wrong(("recipes=[timm/,quick]",), ("model",), ("recipes", *DESIGN), STUDIED),
    Wrong(("recipes=[digits,cifar10]", "data.clutter=2"), ("data.clutter",), ("recipes", *DESIGN), STUDIED),
    Wrong(("sweep=backbones", "recipes=[resnet8,resnet18]"), ("recipes",), ("recipes", *DESIGN), STUDIED),
    Wrong(("recipes=[quick,cifar]", "figures=[forest]"), ("figures",), ("recipes", "figures"), ("analyze",)),
    Wrong(("recipes=[quick,cifar]", "sync=true"), ("sync",), ("recipes", "sync"), ("analyze",)),
    *(Wrong(("sweep=shuffle", f"attention.groups={n}"),
    ("attention.groups",), DESIGN, DESIGNED) for n in (3, 6, 16, 64)),
    Wrong(("sweep=groups", "attention.groups=4"), ("attention.groups",), DESIGN, DESIGNED),
    Wrong(("attention.removed=reassign",), ("attention.removed",), DESIGN, DESIGNED),
    Wrong(("attention.shuffle=false", "attention.permutation=random"), ("attention.permutation",), DESIGN, DESIGNED),
    Wrong(("attention.branches=none", "attention.gate=tanh1"), ("attention.gate",), DESIGN, DESIGNED),
    Wrong(("attention=cbam", "attention.kernel_size=4"), ("attention.kernel_size",), DESIGN, DESIGNED),
    *(
        Wrong(("sweep=shuffle", f"attention.stages={stages}"), ("attention.stages",), DESIGN, DESIGNED)
        for stages in ("0", "4", "2+9", "middle", "''", "1+", "-1", "1.5", "2-3", "all+1", "true")
    ),
    *(
        Wrong(("sweep=shuffle", f"attention.norm={norm}"), ("attention.norm",), DESIGN, DESIGNED)
        for norm in ("nope", "''", "'group:0'", "'group:x'", "'group:1'", "'group:'", "group", "'group:999'", "3",
                     "true")
    ),
    *(Wrong((f"model.stem={stem}",), ("model.stem",), DESIGN, DESIGNED) for stem in ("cifar", "imagenet")),
    *(
        Wrong(("sweep=groups", f"sweep.baseline={name}"), ("sweep.baseline",), DESIGN, DESIGNED)
        for name in ("nope", "groups=3", "nil", "''", "7", "shuffle=on", "'groups = 4'", "é", "none," * 2 + "none")
    ),
    *(
        Wrong(("sweep=groups", option), (option.partition("=")[0],), DESIGN, DESIGNED)
        for option in ("sweep.trials=5", "sweep.confirm=2", "sweep.objectives=[test_loss]", "sweep.objectives=[]",
                       "sweep.max_parameters=7")
    ),
    *(
        Wrong(("sweep=search", f"sweep.objectives={value}"), ("sweep.objectives",), DESIGN, STUDIED)
        for value in ("[]", "[nope]", "[top1,top1]", "[top1,Top1]", "[null]", "[1]", "[[top1]]")
    ),
    Wrong(("sweep=search", "measure=off"), ("measure",), DESIGN, STUDIED),
    Wrong(("sweep=search", "sweep.factors={}"), ("sweep.factors",), DESIGN, STUDIED),
    Wrong(("sweep=search", "replicates=auto"), ("replicates",), DESIGN, STUDIED),
    Wrong(("sweep=search", "data.validation=0"), ("data.validation",), DESIGN, STUDIED),
    Wrong(("sweep=search", "data.seed=replicate"), ("data.seed",), DESIGN, STUDIED),
    Wrong(("data=cifar10", "data.seed=replicate"), ("data.seed",), DESIGN, STUDIED),
    *(Wrong((f"data.validation={share}",), ("data.validation",), DESIGN, STUDIED) for share in ("0.1", "0.5", "1e-3")),
    Wrong(("tune.trials=8", "data.validation=0"), ("data.validation",), DESIGN, STUDIED),
    Wrong(("tune.trials=8", "replicates=auto"), ("replicates",), DESIGN, STUDIED),
    Wrong(("tune.trials=8", "sweep=search"), ("tune.trials",), DESIGN, STUDIED),
    Wrong(("tune.trials=8", "plan.pilot=1"), ("plan.pilot",), (*DESIGN, "plan"), ("plan",)),
    *(Wrong((f"tune.trials={few}", "tune.sampler=tpe"), ("tune.trials",), DESIGN, STUDIED) for few in range(1, 5)),
    *(
        Wrong(("tune.trials=8", f"tune.space={{{space}}}"), ("tune.space",), DESIGN, STUDIED)
        for space in ("train.learning_rate: [0.8, 0.05]", "train.learning_rate: [0.1, 0.1]", "train.learning_rate: []",
                      "train.learning_rate: [a, b]", "train.learning_rate: [[1], 2]", "train.nope: [1, 2]",
                      "attention.groups: [1, 4]", "train.epochs: [1, 9]", "train: 3", "data.crop: [0, 4]",
                      "train.schedule: [onecycle, nope]", "train.batch_size: [1.5, 9]", "train.momentum: [0.5, 2]")
    ),
    Wrong(("sweep=search",), ("sweep",), DESIGN, ("bench",)),
    Wrong(("sweep=search", "plan.pilot=1"), ("plan.pilot",), (*DESIGN, "plan"), ("plan",)),
    *(Wrong((f"replicates.max={most}",), ("replicates.max",), DESIGN, DESIGNED) for most in (2, 31, 33, 10_000)),
    Wrong(("judge.metric=test_loss",), ("sweep.margin",), DESIGN, DESIGNED),
    Wrong(("sweep=search", "judge.metric=test_loss"), ("judge.metric",), DESIGN, STUDIED),
    *(
        Wrong(("baseline_replicates=5", replicates), ("baseline_replicates",), DESIGN, DESIGNED)
        for replicates in ("replicates=2", "replicates=6", "replicates=auto")
    ),
    Wrong(("replicates=auto", "replicates.max=2"), ("replicates.max",), DESIGN, ("run", "plan")),
    *(
        Wrong((f"replicates={most}", f"plan.pilot={most + 1}"), ("plan.pilot",), (*DESIGN, "plan"), ("plan",))
        for most in (1, 3, 99)
    ),
    *(Wrong((f"data.cutout={side}",), ("data.cutout",), DESIGN, STUDIED) for side in (32, 33, 224)),
    Wrong(("data=tiny_imagenet", "data.cutout=64"), ("data.cutout",), DESIGN, STUDIED),
    *(
        Wrong((f"data.train_images={few}", f"train.batch_size={few + more}"), ("train.batch_size",), DESIGN, STUDIED)
        for few in (10, 24, 2048)
        for more in (1, 1000)
    ),
    *(Wrong((f"model=timm/{name}",), ("model",), DESIGN, ("run", "plan", "bench")) for name in ("nope", "", "../x")),
    Wrong(("model=timm/vit_tiny_patch16_224",), ("model",), DESIGN, ("run", "plan", "bench")),
    *(
        Wrong((f"study={name}",), ("study",), (*DESIGN, "study"), STUDIED)
        for name in ("../x", "a/b", "'.'", "..", "' '", "x" * 101, "reference", "mlflow-artifacts", "'a b'", "-x",
                     "~",
                     "'a:b'", "/tmp/x", "'*'", "'\n'", "'a\nb'")
    ),
    *(Wrong((f"results_dir={name}",), ("results_dir",), (*DESIGN, "results_dir"), STORED) for name in ("", "' '",
    "''")),
    *(
        Wrong((f"storage={url}",), ("storage",), (*DESIGN, "storage"), STORED)
        for url in ("nonsense", "nope://x", "'sqlite://'", "'sqlite:///'", "'sqlite:///:memory:'", "'://'",
                    "http://x/y",
                    "results/optuna.db", "postgresql+nope://me:secret@host/db",
                    "'postgresql://me:secret@host:port/db'",
                    "oracle://host/db", "'sqlite+nope:///x.db'", "7", "true")
    ),
    *(
        Wrong((f"tracking.uri={uri}",), ("tracking.uri",), (*DESIGN, "tracking"), ("run", "bench"))
        for uri in ("nope://x", "'://'", "'sqlite://'", "postgresql+nope://me:secret@host/db")
    ),
    *(
        Wrong((f"bench.also={also}",), ("bench.also",), (*DESIGN, "bench"), ("bench",))
        for also in ("[nope]", "['']", "['no.such:Thing']", "['os:nope']", "['os:path']", "[':']", "['os:']",
                     "['..x:Y']",
                     "['os:getcwd']", "[':x']")
    ),
    Wrong(("bench.of=[modules]", "bench.modes=[step]"), ("bench.of",), (*DESIGN, "bench"), ("bench",)),
    Wrong(("bench.of=[networks]", "bench.modes=[backward]"), ("bench.of",), (*DESIGN, "bench"), ("bench",)),
    *(Wrong((f"bench.resolution={side}",), ("bench.resolution",), (*DESIGN, "bench"), ("bench",)) for side in (1, 7)),
    *([] if torch.cuda.is_available() else [Wrong(("device=cuda",), ("device",), DESIGN, ("run", "plan", "bench"))]),
)  # fmt: skip


@st.composite
def an_invalid_config_dir(draw: st.DrawFn) -> Wrong:
    folder = draw(
        st.sampled_from(["/nowhere", "/dev/null", "/dev/null/x", "x" * 300, "x" * 5000, "é", " ", "~nobody", "\n"])
    )
    arguments = draw(st.sampled_from([("--config-dir", folder), (f"--config-dir={folder}",)]))
    return Wrong(arguments, ("--config-dir",), ("--config-dir",))


BROKEN_FILES = {
    "open": "question: [",
    "tab": "\tquestion: x",
    "twice": "question: a\nquestion: b",
    "control": "\x00\x01",
    "empty": "",
    "list": "- 1",
    "text": "some text",
    "number": "7",
    "unknown": "qestion: x",
    "type": "factors: 7",
    "margin": "question: x?\nmargin: much",
    "low": "question: x?\nmargin: -1",
    "interpolated": "question: ${nope}",
    "circular": "question: ${sweep.question}",
    "tagged": "question: !!python/object:os.system x",
    "unknown_tag": "question: !nope x",
    "alias": "question: *nope",
    "anchor": "factors: &a {attention: *a}",
    "key": "? [a, b]\n: x",
    "null_key": "null: x",
    "nothing": "question:",
    "nobody": "question: x?\nfactors: {attention: {groups: [1, 2]}}\nbaseline: ${oc.env:NO_SUCH_VARIABLE}",
    "unresolved": "question: x?\nfactors: {attention: {groups: '${nope}'}}",
    "defaults": "defaults: [nope]\nquestion: x?",
    "defaults_text": "defaults: nope\nquestion: x?",
    "defaults_circular": "defaults: [defaults_circular]\nquestion: x?",
    "defaults_odd": "defaults: [{nope: [1, {a: b}]}]\nquestion: x?",
    "missing": "question: x?\nbaseline: ???",
    "several": "question: x?\n---\nquestion: y?",
    "deep": "question: " + "[" * 600 + "]" * 600,
    "name is odd": "question: x?",
    "é": "question: x?",
}  # fmt: skip
BINARY = b"question: \xff\xfe\xe9"


@st.composite
def a_broken_file(draw: st.DrawFn) -> Wrong:
    name = draw(st.sampled_from([*BROKEN_FILES, "binary", "folder"]))
    group = "sweep" if name not in ("empty", "list") else draw(st.sampled_from(["sweep", "train"]))
    verbs = DESIGNED if name in ("nothing", "missing") else VERBS
    return Wrong((f"--config-dir={FOLDER}", f"{group}={quoted(name)}"), (name, group), ("--config-dir", *DESIGN), verbs)


FOLDER = "<the folder with broken files>"


ONE_THING: tuple[st.SearchStrategy[Wrong], ...] = (
    a_wrong_value().filter(lambda wrong: bool(wrong.verbs)),
    a_wrong_value().filter(lambda wrong: bool(wrong.verbs)),
    a_wrong_name(),
    an_unknown_choice(),
    a_misused_group(),
    a_removed_option(),
    malformed_syntax(),
    several_values_at_once(),
    an_invalid_interpolation(),
    circular_interpolations(),
    an_unknown_flag(),
    an_option_of_another_verb(),
    an_unknown_factor(),
    invalid_levels(),
    invalid_variants(),
    st.sampled_from(TOGETHER),
    st.sampled_from(TOGETHER),
    an_invalid_config_dir(),
    a_broken_file(),
)


@cache
def valid_overrides() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Returns valid overrides without an effect: options with their defaults."""
    switches = {True: "true", False: "false"}
    return tuple(
        (leaf.name, f"{leaf.name}={switches[leaf.default] if leaf.hint is bool else leaf.default}", leaf.verbs)
        for leaf in options()
        if not leaf.context
        and leaf.hint in (int, float, bool, str)
        and leaf.default != ""
        and not leaf.name.startswith("sweep.")
        and leaf.name not in ("results_dir", "study")
    )  # fmt: skip


@st.composite
def wrong_command_lines(draw: st.DrawFn) -> CommandLine:
    first = draw(st.one_of(ONE_THING))
    verb = draw(st.sampled_from(first.verbs))
    chosen = [first]
    for other in draw(st.lists(st.one_of(ONE_THING), max_size=2)):
        if verb in other.verbs and not any(wrong.meets(other.touches) for wrong in chosen):
            chosen.append(other)
    pieces = [wrong.arguments for wrong in chosen]
    for name, override, verbs in draw(st.lists(st.sampled_from(valid_overrides()), max_size=3)):
        if verb in verbs and not any(wrong.meets([name]) for wrong in chosen):
            pieces.append((override,))
    arguments = [argument for piece in draw(st.permutations(pieces)) for argument in piece]
    return CommandLine(verb, tuple(arguments), tuple(name for wrong in chosen for name in wrong.named))


# Tests


class WorkBegan(BaseException):
    """An invalid configuration was accepted; not an Exception, so that no handler hides it."""


def _work(*_: object, **__: object) -> Any:
    raise WorkBegan


@pytest.fixture(scope="module")
def nothing_works() -> Iterator[None]:
    """Makes training, measuring, evaluating claims and network access fail immediately."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", _work)
        patch.setattr(Benchmark, "measure", _work)
        patch.setattr("ablations.ledger.assess.assess", _reads_the_stores_only)
        patch.setattr(socket.socket, "connect", _work)
        yield


def _reads_the_stores_only(urls: Sequence[str], margin: float) -> Any:
    """Replaces the ledger of claims, which takes seconds to compute."""
    importlib.import_module("ablations.ledger.stored").stored_studies(urls)
    _work(margin)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of invalid files."""
    folder = tmp_path_factory.mktemp("conf")
    for group in ("sweep", "train"):
        (folder / group).mkdir()
        for name, text in BROKEN_FILES.items():
            (folder / group / f"{name}.yaml").write_text(text)
        (folder / group / "binary.yaml").write_bytes(BINARY)
        (folder / group / "folder.yaml").mkdir()
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, which is empty."""
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def check(line: CommandLine, status: int, out: str, error: str, folder: Path, conf: Path) -> None:
    __tracebackhide__ = True
    details = f"\n{line}\nstatus {status}\n--- out\n{out}\n--- error\n{error}"
    assert status == cli.USAGE_STATUS, details
    assert error.startswith("error: "), details
    first, *listing = error.rstrip("\n").splitlines()
    assert error.endswith("\n"), details
    # Only the list of sweeps with their questions may follow the message.
    assert not listing or listing[0].startswith("Sweeps (research questions):"), details
    assert all(text.startswith("  ") for text in listing[1:]), details
    assert error.count("error: ") == 1, details
    typed = " ".join(line.arguments)
    assert not [match for match in INSIDE.findall(first.replace(str(conf), "")) if match not in typed], details
    assert len(first) < 1200, details
    assert first.isprintable(), details
    assert "secret" not in error, details
    assert any(name in first for name in line.named), details
    assert out == "", details
    assert not list(folder.iterdir()), f"{details}\n--- written\n{sorted(folder.rglob('*'))}"


def act_of(verb: str) -> Callable[..., int]:
    act: Callable[..., int] = getattr(importlib.import_module(f"ablations.{verb}"), verb)
    return act


def called(line: CommandLine, conf: Path) -> tuple[int, str, str]:
    defaults = ("sweep=rivals",) if line.verb == "bench" else ()
    arguments = [argument.replace(FOLDER, str(conf)) for argument in ("results_dir=results", *line.arguments)]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        several = getattr(importlib.import_module(f"ablations.{line.verb}"), f"{line.verb}_several", None)
        status = cli.main(line.verb, "Does it.", act_of(line.verb), arguments, defaults, several)
    return status, out.getvalue(), error.getvalue()


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(line=wrong_command_lines())
@pytest.mark.usefixtures("nothing_works")
def test_an_invalid_configuration_is_one_message_and_writes_no_files(
    line: CommandLine, empty: Path, broken: Path
) -> None:
    check(line, *called(line, broken), empty, broken)


@pytest.mark.parametrize("wrong", TOGETHER)
@pytest.mark.usefixtures("nothing_works")
def test_conflicting_options_are_refused_by_every_verb_that_has_them(wrong: Wrong, empty: Path, broken: Path) -> None:
    for verb in wrong.verbs:
        line = CommandLine(verb, wrong.arguments, wrong.named)
        check(line, *called(line, broken), empty, broken)


@pytest.mark.parametrize("name", [*BROKEN_FILES, "binary", "folder"])
@pytest.mark.usefixtures("nothing_works")
def test_the_error_for_an_invalid_file_names_it(name: str, empty: Path, broken: Path) -> None:
    line = CommandLine("plan", (f"--config-dir={FOLDER}", f"sweep={quoted(name)}"), (f"sweep/{name}.yaml", "sweep."))
    check(line, *called(line, broken), empty, broken)


@pytest.mark.usefixtures("nothing_works")
def test_help_with_an_invalid_configuration_is_the_same_message(empty: Path, broken: Path) -> None:
    for verb in VERBS:
        for arguments in (("--help", "train.epochs=0"), ("train.epochs=${nope}", "-h"), ("--help", "sweep=nope")):
            line = CommandLine(verb, arguments, ("train.epochs", "sweep"))
            check(line, *called(line, broken), empty, broken)


def test_all_options_of_type_any_have_invalid_values_here() -> None:
    assert {leaf.name for leaf in options() if leaf.hint is Any} == set(ANYTHING)


@pytest.mark.parametrize(
    ("verb", "arguments", "named"),
    [
        ("run", ["train.epochs=${train.epochs}"], "train.epochs"),
        ("run", ["replicates=" + "9" * 5000], "replicates"),
        ("run", ["study=\udcff\n\x1b[31mred", "storage=postgresql+nope://me:secret@host/db"], "study"),
        ("plan", ["--config-dir=" + "x" * 5000, "sweep=mine"], "--config-dir"),
        ("analyze", ["sweep.factors={attention: {groups: [3]}}", ""], "''"),
        ("bench", ["bench.seconds=1e999", "model@data=resnet20"], "model"),
        ("claims", ["sweep.objectives=[[[]]]", "~storage", "$(exit)"], "$(exit)"),
    ],
)
def test_extreme_cases_are_one_message_in_real_processes(
    verb: str, arguments: list[str], named: str, tmp_path: Path, command: Command
) -> None:
    done = command(verb, *arguments, cwd=tmp_path)
    line = CommandLine(verb, tuple(arguments), (named,))
    check(line, done.returncode, done.stdout, done.stderr, tmp_path, tmp_path)


def test_the_verbs_of_options_here_equal_the_declared_ones() -> None:
    assert OWNED == OWNERS  # otherwise `valid_overrides` would not be valid for every verb
