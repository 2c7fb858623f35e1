"""Files that say what to run."""

import dataclasses
import tomllib
from types import SimpleNamespace

import brainunit as u
import numpy as np
import pytest
from typer.testing import CliRunner

from hebbax import cli
from hebbax.experiments import brunel10k, cuba, digits, hpc, reward, song2000
from hebbax.runs import simulate
from hebbax.runs.quantities import quantity

EXPERIMENTS = {m.__name__.rpartition(".")[2]: m for m in (song2000, cuba, brunel10k, hpc, reward, digits)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, [str(a) for a in arguments], env={"COLUMNS": "300", "NO_COLOR": "1"})

    return invoke


@pytest.fixture
def asked(monkeypatch):
    """What a command of `simulate` asks for, in place of doing it."""
    seen = SimpleNamespace()

    def note(experiment, output, duration, steps, options, **arguments):
        seen.__dict__.update(experiment=experiment, output=output, options=options, arguments=arguments)

    monkeypatch.setattr(simulate, "run", note)
    return seen


def test_a_quantity_is_a_number_and_a_unit():
    for text, number, unit in [("16.8 ms", 16.8, u.ms), ("-5mV", -5.0, u.mV), (" 1e-3 s ", 1e-3, u.second),
                               ("2.e+06 ms", 2e6, u.ms), ("3 µs", 3.0, u.us), ("20 kHz", 20.0, u.kHz)]:  # fmt: skip
        found = quantity(text)
        assert found.unit == unit and found.mantissa == number
    for text in ("16.8", "ms", "16.8 mz", "1..2 ms", "", "1 ms 2", "1 math"):
        with pytest.raises(ValueError, match="expected a"):
            quantity(text)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_written_file_is_the_default_run(run, asked, tmp_path, name):
    pytest.importorskip("sklearn" if name == "digits" else "numpy")
    assert run("simulate", name).exit_code == 0
    default = SimpleNamespace(**asked.__dict__)
    result = run("simulate", name, "--write-config")
    assert result.exit_code == 0, result.output
    (tmp_path / "run.toml").write_text(result.output)
    constants = tomllib.loads(result.output)["parameters"]
    fields = dataclasses.fields(EXPERIMENTS[name].Parameters)
    assert len(constants) >= len(fields) - 2
    for field in fields:
        assert (
            field.name not in constants
            or f"# {field.metadata['meaning']} ({field.metadata['source']})" in result.output
        )
    assert run("simulate", name, "--config", "run.toml").exit_code == 0
    assert str(asked.arguments) == str(default.arguments) and asked.output == default.output
    for field in fields:
        for one, other in zip(
            *(values_of(x.arguments["parameters"], field.name) for x in (asked, default)), strict=True
        ):
            assert one == other and type(one) is type(other)


def values_of(parameters, name):
    value = getattr(parameters, name)
    for x in value if isinstance(value, tuple) else (value,):
        yield x.mantissa if isinstance(x, u.Quantity) else x
        yield u.get_unit(x)


def test_the_command_line_wins_over_the_file_and_units_are_converted(run, asked, tmp_path):
    (tmp_path / "run.toml").write_text(
        'experiment = "cuba"\nneurons = 50\nseconds = "20 ms"\nseed = 3\ndt = "200 us"\nstatic = true\nthreads = 1\n'
        '[parameters]\ntrace_time = "0.03 s"\nlargest_weight = 3\n'
    )
    options = ["--config", "run.toml", "--seed", 4, "--set", "largest_weight=2.5", "--set", "membrane_time=16.8 ms"]
    result = run("simulate", "cuba", *options)
    assert result.exit_code == 0, result.output
    p = asked.arguments["parameters"]
    assert [asked.arguments[x] for x in ("neurons", "seconds", "seed", "plastic")] == [50, 0.02, 4, False]
    assert asked.options.threads == 1 and asked.options.backend is None
    assert str(p.time_step) == "0.2 ms" and p.largest_weight == 2.5
    assert (p.trace_time / u.ms, p.membrane_time / u.ms) == pytest.approx((30, 16.8), rel=1e-12)
    assert str(p.trace_time.unit) == "ms"


WRONG = """experiment = "hpc"
neurons = 3
second = 1
seed = "many"
dt = "0.1 mV"
static = 1
trace_time = "3 ms"
[parameters]
membrane_time = 20
threshold = "-50 mx"
time_step = "0.1 ms"
neurons = 3
potentation = 0.1
potentiation = "much"
excitatory_time = "-5 ms"
largest_weight = nan
leak_potential = "5 ms"
"""


def test_every_mistake_of_a_file_is_reported_at_once(run, asked, tmp_path):
    (tmp_path / "bad.toml").write_text(WRONG)
    result = run("simulate", "cuba", "--config", "bad.toml")
    assert result.exit_code == 2 and not asked.__dict__
    for line in (
        "neurons: got 3, expected at least 5",
        "second: unknown, did you mean seconds?",
        "seed: got 'many', expected a valid integer",
        "dt: got '0.1 mV', expected a quantity in ms or the like",
        "static: got 1, expected true or false",
        "experiment: got 'hpc', expected 'cuba'",
        "trace_time: expected in the table [parameters]",
        "parameters.membrane_time: got 20, expected a quantity, such as \"20.0 ms\"",
        "parameters.threshold: got '-50 mx', expected a unit in place of mx",
        "parameters.time_step: not in [parameters]: the option dt sets it",
        "parameters.neurons: not in [parameters]: it is an option",
        "parameters.potentation: unknown, did you mean potentiation?",
        "parameters.potentiation: got 'much', expected a number",
        "parameters.excitatory_time: got '-5 ms', expected a time of more than 0",
        "parameters.largest_weight: got nan, expected a finite number",
        "parameters.leak_potential: got '5 ms', expected a quantity in mV",
    ):  # fmt: skip
        assert f"bad.toml: {line}" in result.output, line
    assert result.output.count("bad.toml: ") == WRONG.count(" = ")


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"neurons = = 3", "run.toml: not TOML: Invalid value (at line 1, column 11)"),
        (b"\xff", "run.toml: expected text"),
        (b'format = "npz"', "format: got 'npz', expected a list, in square brackets"),
        (b"output = 3", "output: got 3, expected the name of a file or a folder"),
        (b"parameters = 3", "parameters: got 3, expected a table"),
        (b"seconds = true", "seconds: got True, expected a number, in s"),
        (b'every = "1_0 s"', "every: got '1_0 s', expected a number before the unit"),
        (None, "run.toml: No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(run, tmp_path, content, expected):
    if content is not None:
        (tmp_path / "run.toml").write_bytes(content)
    result = run("simulate", "cuba", "--config", "run.toml")
    assert result.exit_code == 2 and expected in result.output


@pytest.mark.parametrize(
    "text, expected",
    [
        ("trace_time", "got 'trace_time', expected NAME=VALUE"),
        ("depression_tim=3 ms", "parameters.depression_tim: unknown, did you mean depression_time?"),
        ("neurons=3", "parameters.neurons: not in [parameters]: it is an option"),
        ("start_range=[0, 1, 2]", "parameters.start_range: got [0, 1, 2], expected 2 values, such as [0.0, 1.0]"),
        ("inhibitory_inputs=2.5", "parameters.inhibitory_inputs: got 2.5, expected an integer"),
        ("inhibitory_inputs=0", "inhibitory_inputs: got 0, expected at least 1"),  # the experiment's own check
    ],
)
def test_a_constant_that_is_not_one_is_told(run, asked, text, expected):
    result = run("simulate", "song2000", "--set", text)
    assert result.exit_code == 2 and expected in result.output and not asked.__dict__


def test_a_constant_is_given_once(run, asked):
    result = run("simulate", "song2000", "--set", "threshold=-50 mV", "--set", "threshold=-51 mV")
    assert result.exit_code == 2 and "threshold: given twice, expected once" in result.output and not asked.__dict__


def test_numbers_in_a_list_are_numbers(run, tmp_path):
    (tmp_path / "rule.toml").write_text('shape = [1, "2"]\n')
    result = run("replay", "w.csv", "spikes.csv", "--config", "rule.toml")
    assert result.exit_code == 2 and "shape.1: got '2', expected a valid integer" in result.output


def test_constants_reach_the_simulation(run, tmp_path):
    """From the file to what is computed."""
    options = ["--neurons", 1, "--inputs", 20, "--seconds", 0.01, "--set", "start_range=[0.25, 0.25]"]
    options += ["--format", "npz"]
    assert run("simulate", "song2000", *options).exit_code == 0
    start = np.load(tmp_path / "song2000" / "song2000.npz")["weight_start"]
    np.testing.assert_array_equal(start, np.full((1, 20), np.float32(0.25 * 0.015)))


def test_the_rule_of_a_replay_may_be_in_a_file(run, tmp_path):
    (tmp_path / "rule.toml").write_text(
        'tau_plus = "16.8 ms"\ntau_minus = 30\na_plus = 0.1\npairing = "nearest"\nw_max = 1.0\n'
    )
    (tmp_path / "w.csv").write_text("pre,post,weight\n0,1,0.5\n")
    (tmp_path / "spikes.csv").write_text("time,neuron\n0.010,0\n0.015,1\n")
    result = run("replay", "w.csv", "spikes.csv", "--config", "rule.toml", "--tau-minus", "0.04 s")
    assert result.exit_code == 0, result.output
    assert "tau_plus 16.8 ms, tau_minus 40 ms" in result.output and "pairing nearest" in result.output
    (tmp_path / "rule.toml").write_text('tau_plus = "16.8 mV"\npairing = "nearst"\ntau = 3\n')
    result = run("replay", "w.csv", "spikes.csv", "--config", "rule.toml")
    assert result.exit_code == 2
    for line in (
        "tau_plus: got '16.8 mV', expected a quantity in ms",
        "pairing: got 'nearst', expected 'all' or 'nearest'",
        "tau: unknown, did you mean tau_",
    ):
        assert line in result.output
