"""Files: all formats say the same, and what is malformed is named by its place."""

import builtins
import importlib
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.sparse
from recorded import NEURON, POST, PRE, RNG, RULE, TIME, WEIGHT, N, write_spikes, write_synapses

from hebbax.replay import Replay, connectivity, files, rows, spikes
from hebbax.replay.rows import Malformed, Missing
from hebbax.replay.spikes import Spikes


@pytest.fixture(params=[None, 16], ids=["at once", "in pieces"])
def piecewise(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(rows, "BLOCK", request.param)
        monkeypatch.setattr(rows, "ROWS", request.param)
        monkeypatch.setattr(spikes.sonata, "ROWS", request.param)
        monkeypatch.setattr(files, "PIECE", 5)


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "h5"])
@pytest.mark.parametrize("spike_kind", ["csv", "parquet", "h5"])
def test_every_format_gives_the_same_weights_in_the_same_order(kind, spike_kind, tmp_path, piecewise):
    path = write_synapses(tmp_path / f"synapses.{kind}")
    found = connectivity.read(path, None, True, None)
    result = files.replay(found, RULE, Spikes(write_spikes(tmp_path / f"spikes.{spike_kind}")))
    expected = Replay(RULE, PRE, POST, WEIGHT, shape=(N, N))
    expected.advance(TIME, NEURON)
    np.testing.assert_allclose(result.weight, expected.weight, rtol=0, atol=1e-12)
    assert result.updates == expected.updates and result.spikes == (TIME.size, TIME.size)
    assert result.course.counts.sum() == 2 * TIME.size
    new = tmp_path / f"new.{kind}"
    found.write(new, result.weight)
    again = connectivity.read(new, None, True, None)
    for name, values in (("pre", PRE), ("post", POST), ("weight", result.weight)):
        np.testing.assert_array_equal(getattr(again, name), values)
    assert again.shape == (N, N)
    if kind == "csv":
        assert new.read_text().startswith('note,weight,post,pre\n"n, 0",')
    if kind == "parquet":
        both = [pa.parquet.ParquetFile(x) for x in (path, new)]
        assert both[0].schema_arrow.equals(both[1].schema_arrow, check_metadata=True)
        assert both[0].metadata.num_row_groups == both[1].metadata.num_row_groups
        assert both[0].read().column("note") == both[1].read().column("note")
    if kind == "h5":
        with h5py.File(new) as file:
            assert file["edges/net/0/delay"][:].tolist() == [1.0] * 15


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [scipy.sparse.coo_array, scipy.sparse.coo_matrix])
def test_a_matrix_of_scipy_stays_what_it_is(format, dtype, make, tmp_path):
    matrix = make((WEIGHT.astype(dtype), (PRE, POST)), shape=(N, N)).asformat(format)
    scipy.sparse.save_npz(tmp_path / "w.npz", matrix)
    found = connectivity.read(tmp_path / "w.npz", None, True, None)
    found.write(tmp_path / "new.npz", found.weight / 2)
    new = scipy.sparse.load_npz(tmp_path / "new.npz")
    assert type(new) is type(matrix) and new.dtype == dtype
    np.testing.assert_array_equal(new.data, matrix.data / 2)
    for name in ("row", "col") if format == "coo" else ("indices", "indptr"):
        np.testing.assert_array_equal(getattr(new, name), getattr(matrix, name))


def test_two_sides_are_merged_in_the_order_of_time(tmp_path, piecewise):
    side = RNG.integers(1, 3, TIME.size)
    path = write_synapses(tmp_path / "synapses.csv")
    found = connectivity.read(path, (N, N), False, None)
    paths = [write_spikes(tmp_path / f"{k}.csv", TIME[side == k], NEURON[side == k]) for k in (1, 2)]
    result = files.replay(found, RULE, *map(Spikes, paths))
    expected = Replay(RULE, PRE, POST, WEIGHT, shape=(N, N))
    expected.advance(TIME, NEURON, side)
    np.testing.assert_allclose(result.weight, expected.weight, rtol=0, atol=1e-12)
    assert result.spikes == ((side == 1).sum(), (side == 2).sum())
    empty = write_spikes(tmp_path / "none.csv", TIME[:0], NEURON[:0])
    result = files.replay(found, RULE, Spikes(empty), Spikes(paths[1]))
    np.testing.assert_array_equal(result.weight, WEIGHT)


def test_the_same_time_in_two_units_is_one(tmp_path):
    """Of each side in a unit of its own: spikes that coincide do not pair, whatever 0.0123 s and 12.3 ms round to."""
    found = connectivity.read(write_synapses(tmp_path / "synapses.csv"), (N, N), False, None)
    k = np.arange(1, 500)
    seconds = write_spikes(tmp_path / "s.csv", (0.0123 * k).round(4), k % N)
    milliseconds = write_spikes(tmp_path / "ms.csv", (12.3 * k).round(1), k % N)
    expected = files.replay(found, RULE, Spikes(seconds), Spikes(seconds))
    result = files.replay(found, RULE, Spikes(seconds), Spikes(milliseconds, unit="ms"))
    np.testing.assert_array_equal(result.weight, expected.weight)


GOOD = "time,neuron\n0.1,2\n0.1,3\n"
SPIKES_CSV = {
    "": "line 1: got columns '', expected a header with time, neuron, each once",
    "0.1,2\n": "line 1: got columns '0.1, 2', expected a header with time, neuron",
    "time,id\n": "line 1: got columns 'time, id', expected a header with time, neuron",
    "time,neuron,time\n": "line 1: got column 'time' twice",
    GOOD + "0.2\n": "line 4: got 1 columns, expected 2",
    GOOD + "0.2,1,1\n": "line 4: got 3 columns, expected 2",
    GOOD + "0.2,\n": "line 4: neuron: got '', expected a whole number",
    GOOD + "soon,1\n": "line 4: time: got 'soon', expected a number",
    GOOD + "0.2,1.5\n": "line 4: neuron: got '1.5', expected a whole number",
    GOOD + "0.2,1_0\n": "line 4: neuron: got '1_0', expected a whole number",
    GOOD + "0.2,99999999999999999999\n": "line 4: neuron: got '99999999999999999999', expected a whole number",
    GOOD + "nan,1\n": "line 4: time: got nan, expected a finite number",
    GOOD + "inf,1\n": "line 4: time: got inf, expected a finite number",
    GOOD + "1e308,1\n": "line 4: time: got 1e+308, expected a finite number, within 1e+15 s of 0",
    GOOD + "\n\n0.05,1\n": "line 6: time: got 0.05 after 0.1, expected spikes in the order of time",
    GOOD + "0.2,-1\n": "line 4: neuron: got -1, expected 0 to 6, the neurons of",
    GOOD + "0.2,7\n": "line 4: neuron: got 7, expected 0 to 6, the neurons of",
    GOOD + "0.1,2\n": "line 4: neuron 2 spikes twice at time 0.1, expected every spike once",
    GOOD + '0.2,"1\n0.3,1\n': "line 4: expected a row of UTF-8 text, with no line break in it",
    GOOD + "0.2,\0\n": "line 4",
}


@pytest.fixture
def found(tmp_path):
    return connectivity.read(write_synapses(tmp_path / "synapses.npz"), None, True, None)


@pytest.mark.parametrize("text", SPIKES_CSV, ids=range(len(SPIKES_CSV)))
def test_a_malformed_line_of_spikes_is_named(text, found, tmp_path, piecewise):
    path = tmp_path / "spikes.csv"
    path.write_text(text)
    with pytest.raises(Malformed) as error:
        files.replay(found, RULE, Spikes(path))
    assert str(error.value).startswith(f"{path}, {SPIKES_CSV[text]}"), error.value


@pytest.mark.parametrize(
    "text",
    [
        "\ufefftime,neuron\r\n0.1,2\r\n0.2,3\r\n",
        ' neuron , time ,"a b"\n2,0.1,x\n\n3.0, 2e-1,\n\n',
        "time,neuron\n0.1,2\n0.2,3",
    ],
)
def test_what_programs_write_is_read(text, found, tmp_path, piecewise):
    (tmp_path / "spikes.csv").write_text(text, encoding="utf-8", newline="")
    batches = list(spikes.read(Spikes(tmp_path / "spikes.csv"), N, 3, ""))
    assert np.concatenate([x.time for x in batches]).tolist() == [0.1, 0.2]
    assert np.concatenate([x.neuron for x in batches]).tolist() == [2, 3]


SPIKES_PARQUET = [
    ({"time": [0.1, None], "neuron": [1, 2]}, "row 1 of all (row group 1, both counted from 0): time: is missing"),
    (
        {"time": [0.1, 0.0], "neuron": [1, 2]},
        "row 1 of all (row group 1, both counted from 0): time: got 0.0 after 0.1",
    ),
    ({"time": [0.1, 0.2], "neuron": [1, 2.5]}, "row 1 of all (row group 1, both counted from 0): neuron: got 2.5"),
    (
        {"time": [0.1, 0.2], "neuron": [1, float("nan")]},
        "row 1 of all (row group 1, both counted from 0): neuron: got nan",
    ),
    ({"time": ["0.1"], "neuron": [1]}, "column 'time' has the type string, expected numbers"),
    ({"t": [0.1], "neuron": [1]}, "got columns 't, neuron', expected a header with time, neuron"),
]


@pytest.mark.parametrize("case", SPIKES_PARQUET, ids=range(len(SPIKES_PARQUET)))
def test_a_malformed_row_of_parquet_is_named(case, found, tmp_path):
    path = tmp_path / "spikes.parquet"
    pa.parquet.write_table(pa.table(case[0]), path, row_group_size=1)
    with pytest.raises(Malformed) as error:
        files.replay(found, RULE, Spikes(path))
    assert case[1] in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("name", ["w.npz", "w.csv", "w.parquet", "w.h5"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not this", b"\x89HDF\r\n\x1a\n\0", b"\xff\xfe\0\n"])
def test_what_is_no_such_file_is_said(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Malformed, match=name):
        connectivity.read(tmp_path / name, None, True, None)
    with pytest.raises(FileNotFoundError):
        connectivity.read(tmp_path / f"no-{name}", None, True, None)


WRONG_SYNAPSES = [
    (dict(pre=np.array([0, -1]), post=np.array([1, 1]), weight=np.array([0.5, 0.5])), "pre: got -1, expected a neuron"),
    (
        dict(pre=np.array([0, 1]), post=np.array([1, 1]), weight=np.array([0.5, np.nan])),
        "weight: got nan, expected a finite",
    ),
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("wrong, message", WRONG_SYNAPSES)
def test_a_malformed_synapse_is_named(kind, wrong, message, tmp_path):
    path = write_synapses(tmp_path / f"w.{kind}", **wrong)
    place = "line 3" if kind == "csv" else "row 1 of all (row group 0, both counted from 0)"
    with pytest.raises(Malformed) as error:
        connectivity.read(path, None, True, None)
    assert str(error.value).startswith(f"{path}, {place}: {message}")


def test_synapses_are_within_the_shape_and_weights_within_the_bounds(tmp_path):
    path = write_synapses(tmp_path / "w.csv")
    line = 2 + int(np.argmax(PRE == N - 1))
    with pytest.raises(
        Malformed, match=rf"w.csv, line {line}: pre: got 6, expected below 6, the number of such neurons"
    ):
        connectivity.read(path, (6, 7), False, None)
    found = connectivity.read(path, (9, 8), False, None)
    assert found.shape == (9, 8)
    line = 2 + int(np.argmax(WEIGHT > 0.5))
    with pytest.raises(
        Malformed, match=rf"w.csv, line {line}: weight: got 0.\d+, expected one within the bounds .* 0.5"
    ):
        connectivity.check_bounds(found, 0.0, 0.5)
    with pytest.raises(Malformed, match=r"is of shape \(9, 8\), not of one population: give --pre and --post"):
        files.replay(found, RULE, Spikes(tmp_path / "spikes.csv"))
    with pytest.raises(Malformed, match=r"w.npz: is of shape \(7, 7\), but --shape says \(7, 8\)"):
        connectivity.read(write_synapses(tmp_path / "w.npz"), (7, 8), True, None)


def change(path, function):
    with h5py.File(path, "r+") as file:
        function(file)
    return path


def replaced(name, values):
    def function(file):
        del file[name]
        file[name] = values

    return function


WRONG_EDGES = [
    (lambda f: f.move("edges", "edge"), "has no group /edges/<population>, expected a SONATA file of edges"),
    (replaced("edges", np.zeros(3)), "has no group /edges/<population>, expected a SONATA file of edges"),
    (lambda f: f.copy("edges/net", "edges/other"), "has several populations, net, other: name one of them"),
    (lambda f: f.pop("edges/net/target_node_id"), "/edges/net/target_node_id: is missing; the group has"),
    (replaced("edges/net/target_node_id", np.zeros(3, int)), "target_node_id: has 3 entries, expected 30"),
    (
        replaced("edges/net/target_node_id", np.zeros(30)),
        "target_node_id: expected a dataset of one dimension, of integers",
    ),
    (
        replaced("edges/net/0/syn_weight", np.zeros(15, int)),
        "syn_weight: expected a dataset of one dimension, of float",
    ),
    (lambda f: f.pop("edges/net/0/syn_weight"), "/edges/net/0: has no syn_weight, expected one weight for each edge"),
    (
        replaced("edges/net/edge_group_id", np.full(30, 5)),
        "position 0: edge_group_id: got 5, but /edges/net/5 is missing",
    ),
    (
        replaced("edges/net/edge_group_index", np.full(30, 99)),
        "position 0: edge_group_index: got 99, expected below 15",
    ),
    (
        replaced("edges/net/edge_group_index", np.zeros(30, int)),
        "several edges have the same edge_group_index in group 0",
    ),
]


@pytest.mark.parametrize("function, message", WRONG_EDGES, ids=range(len(WRONG_EDGES)))
def test_a_malformed_file_of_edges_is_explained(function, message, tmp_path):
    path = change(write_synapses(tmp_path / "w.h5"), function)
    with pytest.raises(Malformed) as error:
        connectivity.read(path, None, True, None)
    assert message in str(error.value) and str(error.value).startswith(str(path))
    with pytest.raises(Malformed, match=r"has no population 'x' in /edges|has no group"):
        connectivity.read(path, None, True, "x")


def test_a_chunk_of_edges_that_is_broken_is_that_of_this_file(tmp_path):
    path = write_synapses(tmp_path / "w.h5")
    with h5py.File(path, "r+") as file:
        del file["edges/net/source_node_id"]
        file["edges/net"].create_dataset("source_node_id", data=PRE, compression="gzip")
        chunk = file["edges/net/source_node_id"].id.get_chunk_info(0)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with pytest.raises(Malformed, match=r"w.h5: cannot be read: "):
        connectivity.read(path, None, True, None)


def test_what_is_no_matrix_of_scipy_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(Malformed, match=r"w.npz: is not what scipy.sparse.save_npz writes"):
        connectivity.read(path, None, True, None)
    matrix = scipy.sparse.csr_array((np.ones(1), [0], [0, 1]), shape=(1, 2**40))
    scipy.sparse.save_npz(path, matrix)
    with pytest.raises(Malformed, match=r"w.npz: got the shape \(1, 1099511627776\), expected at most 2147483646"):
        connectivity.read(path, None, True, None)


@pytest.mark.parametrize("number", [2**31 - 2, 2**31, 2**63 - 1])
def test_a_number_of_a_neuron_that_is_too_large_is_named(number, tmp_path):
    (tmp_path / "w.csv").write_text(f"pre,post,weight\n0,1,0.5\n0,{number},0.5\n")
    with pytest.raises(Malformed, match=rf"w.csv, line 3: post: got {number}, expected a neuron's number, below 2147"):
        connectivity.read(tmp_path / "w.csv", None, True, None)


def test_a_mistyped_number_does_not_ask_for_gigabytes(tmp_path):
    path = tmp_path / "w.csv"
    path.write_text("pre,post,weight\n0,1,0.5\n2000000000,0,0.5\n")
    with pytest.raises(Malformed, match=r"w.csv, line 3: pre: got 2000000000, expected below 1000000, for 2 synapses"):
        connectivity.read(path, None, True, None)
    path.write_text("pre,post,weight\n0,1,0.5\n999999,0,0.5\n")
    assert connectivity.read(path, None, False, None).shape == (10**6, 2)
    path.write_text("pre,post,weight\n2000000000,0,0.5\n")
    assert connectivity.read(path, (2 * 10**9 + 1, 1), False, None).shape == (2 * 10**9 + 1, 1)


def test_other_columns_of_a_table_may_hold_anything(tmp_path):
    """Long fields and bytes that are no UTF-8: it is not for them to fail when the weights are there."""
    name = "caf\xe9".encode("latin-1") + b"x" * 200_000
    (tmp_path / "w.csv").write_bytes(b"pre,name,post,weight\n0," + name + b",1,0.5\n1,,0,0.25\n")
    found = connectivity.read(tmp_path / "w.csv", None, True, None)
    found.write(tmp_path / "new.csv", found.weight / 2)
    assert (tmp_path / "new.csv").read_bytes() == b"pre,name,post,weight\n0," + name + b",1,0.25\n1,,0,0.125\n"
    (tmp_path / "w.csv").write_text("pre,name,post,weight\n\n0," + 200_000 * "x" + ",1,0.5\n")  # read line by line
    assert connectivity.read(tmp_path / "w.csv", None, True, None).weight.tolist() == [0.5]


def test_spikes_of_sonata(found, tmp_path):
    path = write_spikes(tmp_path / "s.h5")
    assert files.source(path, "a", None) == Spikes(path, "a", None)
    assert files.source(path, "b", None) == Spikes(path, None, None)
    change(path, lambda f: f["spikes/a/timestamps"].attrs.__setitem__("units", "seconds"))
    time = np.concatenate([x.time for x in spikes.read(files.source(path, "", None), N, 3, "")])
    np.testing.assert_allclose(time, 1000 * TIME)
    change(path, lambda f: f["spikes/a/timestamps"].attrs.__setitem__("units", "hours"))
    with pytest.raises(Malformed, match="/spikes/a/timestamps: has the unit 'hours', expected one of milliseconds"):
        spikes.read(files.source(path, "", None), N, 3, "")
    change(path, replaced("spikes/a/node_ids", np.append(NEURON[:-1], N)))
    with pytest.raises(Malformed, match=rf"s.h5, /spikes/a, position {TIME.size - 1}: neuron: got 7, expected 0 to 6"):
        files.replay(found, RULE, Spikes(path, None, "ms"))


def test_a_library_that_is_missing_is_named(monkeypatch, tmp_path):
    real = builtins.__import__
    for name in [x for x in sys.modules if x.partition(".")[0] in ("h5py", "pyarrow")]:
        monkeypatch.delitem(sys.modules, name)

    def fail(name, *_):
        if name.partition(".")[0] in ("h5py", "pyarrow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    for name, package in (("w.h5", "h5py"), ("w.csv", "pyarrow"), ("w.parquet", "pyarrow")):
        (tmp_path / name).touch()
        with pytest.raises(Missing, match=rf'{name}: reading it takes {package}.*: pip install "hebbax\[replay\]"'):
            connectivity.read(tmp_path / name, None, True, None)


def test_a_library_that_is_broken_is_named(monkeypatch, tmp_path):
    def fail(name, *_):
        raise ImportError("libhdf5.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    (tmp_path / "w.h5").touch()
    with pytest.raises(
        Missing, match=r"w.h5: reading it takes h5py, which cannot be imported: libhdf5.so: cannot open"
    ):
        connectivity.read(tmp_path / "w.h5", None, True, None)
