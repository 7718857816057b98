"""What is wrong with a config, and where: the contract's and faults of every sort."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import Settings, load_settings
from nnctl.config.schema import mapping_schema
from nnctl.config.words import OTHER_WORDS
from nnctl.config.yaml_tree import MAX_BYTES, MAX_PROBLEMS
from nnctl.errors import ConfigError, ExitCode, SystemFailure
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.layers import LAYERS
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES

Refusal = Callable[..., str]

NETWORK = "network: [{affine: 10}]\n"


def test_error_shows_file_line_column_and_a_caret(refusal: Refusal) -> None:
    assert refusal("network:\n  - affine: 50\n  - reluu\n") == (
        "a.yaml:3:5: 'reluu' is no layer; did you mean relu?\n      - reluu\n        ^"
    )


def test_caret_stands_behind_wide_characters(refusal: Refusal) -> None:
    message, line, caret = refusal(f"{NETWORK}data: {{dataset: 数字/é, x: 1}}").splitlines()
    assert message.startswith("a.yaml:2:23: unknown key 'x' in data; valid are dataset")
    assert line == "    data: {dataset: 数字/é, x: 1}"
    assert len(caret) == line.index("x") + 1 + len("数字")  # each is two columns wide


def test_error_cuts_a_long_line_around_the_column(refusal: Refusal) -> None:
    message = refusal("network: [" + "relu, " * 200 + "reluu, " + "relu, " * 200 + "]")
    place, line, caret = message.splitlines()
    assert place.startswith("a.yaml:1:1211: 'reluu'")
    assert len(line) < 100
    assert line[caret.index("^") :].startswith("reluu, relu")


def test_error_makes_control_characters_visible(refusal: Refusal) -> None:
    message = refusal('network: [{affine: 10}]\nname: "\\e[31mred"')
    assert "\\x1b[31mred" in message
    assert "\x1b" not in refusal("name: \x1b[31m")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("sed: 3", "1:1", "unknown key 'sed' in the config; did you mean seed?"),
        ("data: {dataset: mnits}", "1:17", "'mnits' is no data set"),
        ("data: {dataset: fashion}", "1:17", "did you mean fashion-mnist?"),
        ("data: {validation: -1}", "1:20", "data.validation must be at least 0, not -1"),
        ("data: {train_size: 0}", "1:20", "data.train_size must be at least 1, not 0"),
        ("data: {train_size: 2.5}", "1:20", "data.train_size must be a whole number, not 2.5"),
        ("data: {validation: 2.5}", "1:20", "must be a whole number, or a fraction below 1, not"),
        ("data: {validation: -0.1}", "1:20", "data.validation must be a whole number, or a frac"),
        ("data: {validation: x}", "1:20", "data.validation must be a whole number, not the word"),
        ("data: 5", "1:7", "data must be a mapping, not 5; valid are dataset, validation"),
        ("seed: true", "1:7", "seed must be a whole number, not true"),
        ("seed: no", "1:7", "seed must be a whole number, not the word 'no'"),
        ("seed: 1_000", "1:7", "not the word '1_000'"),
        ("seed: 9223372036854775808", "1:7", "seed must be at most 9223372036854775807"),
        ("seed:", "1:6", "seed must be a whole number, not empty"),
        ("name: 3", "1:7", "name must be a word, not 3; put it in quotes"),
        ("name: a b", "1:7", "name must be 1 to 100 letters, digits, dots"),
        ("name: ''", "1:7", "name must be 1 to 100 letters"),
        ("name: ..", "1:7", "name must be 1 to 100 letters"),
        ('name: "a\\n"', "1:7", "name must be 1 to 100 letters"),
        ("loss: cross_entropy", "1:7", "'cross_entropy' is no loss; did you mean softmax_cross"),
        ("loss:", "1:6", "loss must be the name of one loss, not empty; valid are softmax_cross"),
        ("optimizer: {kind: 3}", "1:19", "3 is no optimizer; valid are sgd, momentum"),
        (
            "optimizer: {momentum: 0.9}",
            "1:13",
            "is a kind of optimizer: write {kind: momentum,",
        ),
        ("optimizer: {kind: adam, beta1: 1}", "1:32", "optimizer.beta1 must be below 1, not 1"),
        ("optimizer: {learning_rate: 0}", "1:28", "optimizer.learning_rate must be above 0"),
        ("optimizer: {learning_rate: .inf}", "1:28", "learning_rate must be finite, not inf"),
        ("optimizer: {learning_rate: 1e999}", "1:28", "learning_rate must be finite, not inf"),
        ("optimizer: {weight_decay: .nan}", "1:27", "weight_decay must be finite, not nan"),
        ("schedule: {kind: step, every: 0}", "1:31", "schedule.every must be at least 1"),
        ("training: {epochs: fast}", "1:20", "epochs must be a whole number, not the word 'fast'"),
        ("training: {clip_norm: [1]}", "1:23", "training.clip_norm must be a number, not a list"),
        ("training: {early_stopping: {}}", "1:28", "training.early_stopping needs patience"),
        ("training: {early_stopping: 3}", "1:28", "early_stopping must be a mapping, not 3"),
        ("data: {augment: 3}", "1:17", "data.augment must be a mapping, not 3; valid are shift"),
        ("data: {augment: {rotation: 3}}", "1:18", "unknown key 'rotation' in data.augment; did"),
        ("data: {augment: {shift: -1}}", "1:25", "data.augment.shift must be at least 0, not -1"),
        ("data: {augment: {scale: 1}}", "1:25", "data.augment.scale must be below 1, not 1"),
        ("data: {augment: {elastic: 2}}", "1:27", "data.augment.elastic must be a mapping, not 2"),
        (
            "data: {augment: {elastic: {smoothness: 0}}}",
            "1:40",
            "data.augment.elastic.smoothness must be at least 0.5, not 0",
        ),
        ("seed: 1\nseed: 2", "2:1", "'seed' is here twice, first in line 1"),
        ("seed: &a 1", "1:7", "anchors are not allowed"),
        ("seed: *a", "1:7", "aliases are not allowed"),
        ("seed: !!int 1", "1:7", "tags such as 'tag:yaml.org,2002:int' are not allowed"),
        ("optimizer: {knd: adam}", "1:13", "unknown key 'knd' in optimizer; did you mean kind?"),
        ("loss: {x: 1, kind: mean_squared_error}", "1:8", "squared_error; valid are kind"),
        ("<<: {seed: 1}", "1:1", "unknown key '<<' in the config"),
        ("? [a]\n: 1", "1:3", "a key must be a word"),
    ],
)
def test_wrong_key_or_value_is_placed_and_named(
    refusal: Refusal, text: str, place: str, words: str
) -> None:
    message = refusal(f"{text}\n{NETWORK}")
    assert message.startswith(f"a.yaml:{place}: ")
    assert words in message.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("[]", "1:10", "network must have 1 to 500 layers, not 0"),
        ("relu", "1:10", "network must be a list of layers, not the word 'relu'"),
        ("[3]", "1:11", "network.0 must be one layer, not 3; valid are affine, relu"),
        ("[{}]", "1:11", "network.0 must be one layer, not a mapping"),
        ("[affine]", "1:11", "network.0.affine needs units"),
        ("[Affine]", "1:11", "'Affine' is no layer; did you mean affine?"),
        ("[{affine: ten}]", "1:20", "network.0.affine.units must be a whole number"),
        ("[{affine: {unit: 9}}]", "1:20", "network.0.affine needs units"),
        ("[{dropout: 1}]", "1:21", "network.0.dropout.rate must be below 1, not 1"),
        ("[{relu: 3}]", "1:18", "relu takes no value"),
        ("[{batch_norm: 0.9}]", "1:24", "batch_norm takes no value; write batch_norm: {OPTION"),
        ("[{relu: , tanh: }]", "1:20", "network.0 is relu already"),
        ("[{affine: , units: 3}]", "1:22", "'units' must be indented further, below affine"),
        (
            "[{affine: {units: 9, initializer: he}}]",
            "1:44",
            "'he' is no initializer; did you mean he_normal?",
        ),
        (
            "[{affine: {units: 9, initializer: {kind: normal, std: -1}}}]",
            "1:64",
            "network.0.affine.initializer.std must be at least 0, not -1",
        ),
    ],
)
def test_wrong_layer_is_placed_and_named(
    refusal: Refusal, text: str, place: str, words: str
) -> None:
    message = refusal(f"network: {text}")
    assert message.startswith(f"a.yaml:{place}: ")
    assert words in message.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network: [{dense: 50}]", "'dense' is no layer; did you mean affine?"),
        ("network: [{Linear: 50}]", "'Linear' is no layer; did you mean affine?"),
        ("network: [fc]", "'fc' is no layer; did you mean affine?"),
        ("network: [softmax]", "'softmax' is no layer; leave it out: the loss softmax_cross_entr"),
        ("network: [Flatten]", "'Flatten' is no layer; leave it out: images reach the network fl"),
        ("network: [{type: dense, units: 9}]", "'type' is no layer; a layer is written as its n"),
        (
            "network: [{affine: {units: 9, activation: relu}}]",
            "an activation is a layer of its",
        ),
        ("network: [{affine: {out_features: 9}}]", "did you mean units?"),
        ("network: [{dropout: {p: 0.5}}]", "did you mean rate?"),
        ("loss: mse", "'mse' is no loss; did you mean mean_squared_error?"),
        ("loss: CrossEntropyLoss", "did you mean softmax_cross_entropy?"),
        ("loss: cross-entropy", "did you mean softmax_cross_entropy?"),
        ("optimizer: {type: adam}", "unknown key 'type' in optimizer; did you mean kind?"),
        ("optimizer: {kind: adam, lr: 1}", "unknown key 'lr' in adam; did you mean learning_rate?"),
        ("optimizer: {kind: adam, beta_1: 1}", "unknown key 'beta_1' in adam; beta1 and beta2 are"),
        ("optimizer: {kind: sgd, beta1: 1}", "unknown key 'beta1' in sgd; adam, adamw have it"),
        (
            "optimizer: {beta1: 1}",
            "names no kind, and 'beta1' is not for all: adam, adamw have",
        ),
        (
            "optimizer: {rho: 1}",
            "optimizer names no kind, and 'rho' is not for all: rmsprop",
        ),
        ("optimizer: {adam: 0.1}", "'adam' is a kind of optimizer: write {kind: adam, OPTION: VAL"),
        ("optimizer: {adam: , lr: 1}", "'adam' is a kind of optimizer: write {kind: adam, OPTION"),
        ("schedule: cosine_annealing", "did you mean cosine?"),
        ("epochs: 3", "unknown key 'epochs' in the config; did you mean training.epochs?"),
        ("max_epochs: 3", "did you mean training.epochs?"),
        ("lr: 3", "unknown key 'lr' in the config; did you mean optimizer.learning_rate?"),
        ("batch_size: 3", "did you mean training.batch_size?"),
        ("dataset: mnist", "did you mean data.dataset?"),
        ("validation_split: 0.1", "did you mean data.validation?"),
        ("training: {seed: 3}", "unknown key 'seed' in training; did you mean seed?"),
        ("training: {learning_rate: 3}", "did you mean optimizer.learning_rate?"),
        ("optimizer: {epochs: 3}", "did you mean training.epochs?"),
        ("layers: []", "unknown key 'layers' in the config; did you mean network?"),
        ("parameters: {seed: [1, 2]}", "a sweep file has it: `nnctl sweep FILE`"),
        ("momentum: 0.9", "did you mean network.N.batch_norm.momentum or optimizer.momentum?"),
    ],
)
def test_words_of_other_tools_and_keys_in_the_wrong_place_get_the_right_word(
    refusal: Refusal, text: str, words: str
) -> None:
    assert words in refusal(text if text.startswith("network") else f"{text}\n{NETWORK}")


@pytest.mark.parametrize("text", ["optimizer: {x: 1}", "schedule: {x: 1}", "loss: {x: 1}"])
def test_no_message_speaks_of_a_kind_that_nobody_wrote(refusal: Refusal, text: str) -> None:
    message = refusal(f"{text}\n{NETWORK}").partition("; valid are")[0]
    assert message.endswith(f"unknown key 'x' in {text.partition(':')[0]}")


def test_every_word_that_others_are_led_to_is_there() -> None:
    registries: dict[str, dict[str, Any]] = {
        "layer": LAYERS,
        "loss": LOSSES,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "initializer": INITIALIZERS,
    }
    keys = {key.rpartition(".")[2] for key in mapping_schema(Settings).keys("")}
    for used_as, words in OTHER_WORDS.items():
        valid = {*registries[used_as]} if used_as in registries else keys
        assert {own for own in words.values() if " " not in own} <= valid
        others = [other for line in words for other in line.split()]
        assert len(others) == len(set(others))
        assert valid.isdisjoint(others)


def test_errors_of_a_file_come_together_from_top_to_bottom(refusal: Refusal) -> None:
    message = refusal("training: {epochs: 0}\nnetwork: [reluu]\nseed: x\nsede: 1\n")
    places = [line.split(": ")[0] for line in message.splitlines() if line.startswith("a.yaml")]
    assert places == ["a.yaml:1:20", "a.yaml:2:11", "a.yaml:3:7", "a.yaml:4:1"]


def test_errors_are_cut_off_when_there_are_many(refusal: Refusal) -> None:
    message = refusal(NETWORK + "".join(f"k{i}: 1\n" for i in range(MAX_PROBLEMS + 5)))
    assert message.count("unknown key") == MAX_PROBLEMS
    assert message.endswith("\n... and 5 more")


def test_network_is_required(refusal: Refusal) -> None:
    assert refusal("seed: 1\n").startswith("a.yaml:1:1: the config needs network\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "~"])
def test_empty_file_needs_a_network(refusal: Refusal, text: str) -> None:
    assert "the config needs network" in refusal(text)


@pytest.mark.parametrize("where", [("data", "{validation: 0}"), ("data.validation", "0")])
def test_early_stopping_needs_a_validation_set(refusal: Refusal, where: tuple[str, str]) -> None:
    text = f"{NETWORK}training:\n  early_stopping: {{patience: 3}}"
    assert refusal(text, where).startswith(
        "a.yaml:3:19: training.early_stopping needs a validation set: data.validation is 0"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network:\n\t- relu", "indent with spaces, not with tabs"),
        ("network: [relu", "a.yaml:1:"),
        ("network: 'relu", "a.yaml:1:"),
        ("a: b: c", "mapping values are not allowed"),
        (f"{NETWORK}---\n{NETWORK}", "a.yaml:2:1: a second document"),
        ("- relu\n- tanh", "a.yaml:1:1: a config must be a mapping, not a list"),
        ("just words", "a config must be a mapping, not the word 'just words'"),
        ("network: !!python/object/apply:os.abort []", "tags such as"),
        (b"network: \x00", "a.yaml:1:10: character U+0000 is not allowed in YAML"),
        (b"network: caf\xe9", "a.yaml:1:13: byte 0xe9 is not UTF-8; is this a text file?"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "a.yaml:1:1: byte 0x89 is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "byte 0x8b is not UTF-8"),
        ("network: [relu]".encode("utf-16"), "byte 0xff is not UTF-8"),
        ('data: {dataset: "./a\\0b"}', "data.dataset must be a path that can be written"),
    ],
)
def test_text_that_is_no_config_is_refused(refusal: Refusal, text: str | bytes, words: str) -> None:
    assert words in refusal(text)


HOSTILE = {
    "deep lists": "[" * MAX_BYTES,
    "deep mappings": "{a: " * (MAX_BYTES // 4),
    "deep sequences": "- " * (MAX_BYTES // 2),
    "deep keys": "? " * (MAX_BYTES // 2),
    "alias bomb": "a: &a [x, x]\n" + "".join(f"k{i}: &b{i} [*a, *a]\n" for i in range(2000)),
    "many keys": "".join(f"k{i}: 1\n" for i in range(6000)),
    "one key again and again": "a: 1\n" * (MAX_BYTES // 5),
    "many layers": "network:\n" + "- relu\n" * 9000,
    "wrong layers": "network: [" + "{x: 1}," * 9000 + "]",
    "empty keys": "?\n" * (MAX_BYTES // 2),
    "digits": "network: [{affine: " + "9" * (MAX_BYTES - 30) + "}]",
    "exponent": "network: [{affine: 1e" + "9" * 5000 + "}]",
    "hexadecimal": "network: [{affine: 0x" + "f" * 5000 + "}]",
    "a long word": "network: [" + "x" * (MAX_BYTES - 20) + "]",
    "quotes": '"' * MAX_BYTES,
    "escapes": 'network: ["' + "\\u0041" * 10000 + '"]',
    "directives": "%TAG ! tag:\n" * 5000,
    "documents": "---\n" * 10000,
    "line breaks": "\n" * MAX_BYTES,
    "too large": "#" * (MAX_BYTES + 1),
}

ENDURE = """
import resource, sys, time
from pathlib import Path
from nnctl.config import load_settings
from nnctl.errors import ConfigError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        load_settings(str(path))
    except ConfigError as error:
        assert len(str(error)) < 10_000, path
    else:
        raise AssertionError(f"{path} was read")
    assert time.process_time() - start < 1, path
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")
def test_hostile_text_is_refused_within_a_second_in_little_memory(tmp_path: Path) -> None:
    for name, text in HOSTILE.items():
        (tmp_path / name).write_text(text)
    subprocess.run([sys.executable, "-c", ENDURE, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ufeff" + NETWORK, "a byte order mark"),
        (NETWORK.replace("\n", "\r\n") + "seed: 3\r\n", "CRLF"),
        ('{"network": [{"affine": {"units": 10}}]}', "JSON"),
        ("---\n" + NETWORK + "...\n", "document marks"),
        ("%YAML 1.2\n---\n" + NETWORK, "a directive"),
    ],
)
def test_harmless_variants_are_read(load: Callable[..., object], text: str, words: str) -> None:
    assert load(text) is not None, words


def test_error_in_a_crlf_file_is_in_the_right_line(refusal: Refusal) -> None:
    assert refusal("seed: 1\r\n\r\nnetwork: [x]\r\n").startswith("a.yaml:3:11: 'x' is no layer")


def test_missing_file_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; `nnctl config list`") as caught:
        load_settings(str(tmp_path / "missing.yaml"))
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(ConfigError, match="there is no such file"):
        load_settings(str(tmp_path / ("x" * 300)))


def test_folder_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder, not a file"):
        load_settings(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_unreadable_file_is_a_failure_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.touch(0o000)
    with pytest.raises(SystemFailure, match="permission denied"):
        load_settings(str(path))


def test_what_cannot_be_seen_is_not_taken_for_a_bundled_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nnctl.files.os.stat", denied)
    with pytest.raises(SystemFailure, match="permission denied"):
        load_settings("quickstart")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without an end")
def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="more than the 64 KiB"):
        load_settings("/dev/zero")


def test_file_whose_name_is_no_run_name_needs_a_name(tmp_path: Path) -> None:
    path = tmp_path / "my config.yaml"
    path.write_text(NETWORK)
    with pytest.raises(ConfigError, match="would be named 'my config' after the file"):
        load_settings(str(path))
    assert load_settings(str(path), [("name", "mine")]).name == "mine"
