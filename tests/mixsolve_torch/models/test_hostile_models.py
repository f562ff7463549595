"""Files made to run a command, or to write or read a file, when they are loaded or called.

Each is made from a good one. That its marker never appears is what counts; the same file without
the malice loads. Those that PyTorch alone falls for are made to prove it, so that no test passes
because its file is harmless.
"""

import contextlib
import io
import json
import os
import pickle
import sys
import tarfile
import warnings
import zipfile

import pytest
import torch

from mixsolve.base.errors import MixsolveError
from mixsolve.commands.main import main
from mixsolve_torch import digits_cnn, load_model
from mixsolve_torch.models import archives, script_scan
from mixsolve_torch.models.exported_graph import takes_path

# Newer versions of PyTorch deprecate TorchScript, which people have models in.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

MODEL = "models/model.json"
CONFIG = "data/weights/model_weights_config.json"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def bomb(marker):
    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return digits_cnn(seed=3, width=4).eval()


@pytest.fixture(scope="module")
def program(network, images, tmp_path_factory):
    """A good exported program, by its parts."""
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=({0: batch},)), path)
    parts = parts_of(path)
    if MODEL not in parts:
        pytest.skip("this PyTorch writes another archive")
    return parts


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A good TorchScript module, by its parts."""
    path = tmp_path_factory.mktemp("good") / "model.pt"

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)

    torch.jit.save(torch.jit.script(Flat()), path)
    return parts_of(path)


def parts_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path, parts, folder="model/"):
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(folder + part, content)
    return path


def edited(program, edit):
    """The parts of a program, its graph changed by a function."""
    content = json.loads(program[MODEL])
    edit(content)
    return {**program, MODEL: json.dumps(content).encode()}


def graph(content):
    return content["graph_module"]["graph"]


def set_path(content, value, *keys):
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


def falls_for_it(path, marker, load=torch.export.load, images=None):
    """Whether PyTorch by itself runs what is in a file; the marker is removed again."""
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        model = load(str(path))
        if images is not None:
            (model.module() if load is torch.export.load else model)(images)
    fell = marker.exists()
    marker.unlink(missing_ok=True)
    return fell


def assert_refused(path, marker, message):
    with pytest.raises(MixsolveError, match=message):
        load_model(path)(torch.ones(2, 1, 8, 8))
    assert not marker.exists()


# Exported programs


def test_a_good_program_is_what_it_was(program, network, images, tmp_path):
    model = load_model(write(tmp_path / "a.pt2", program))
    for count in (1, 2, 3):
        torch.testing.assert_close(model(images[:count]), network(images[:count]))


def test_a_pickle_of_weights_beside_the_weights(program, bomb, marker, tmp_path):
    path = write(tmp_path / "a.pt2", {"data/weights/model.pt": bomb, **program})
    assert falls_for_it(path, marker)
    assert_refused(path, marker, r"a pickled object in data/weights/model\.pt")
    path = write(tmp_path / "b.pt2", {"data/constants/model.pt": bomb, **program})
    assert_refused(path, marker, r"a pickled object in data/constants/model\.pt")


def test_weights_pickled_as_plain_tensors_are_read(program, network, images, tmp_path):
    buffer = io.BytesIO()
    torch.save(dict(network.state_dict(keep_vars=True)), buffer)
    parts = {part: content for part, content in program.items() if part != CONFIG}
    path = write(tmp_path / "a.pt2", {"data/weights/model.pt": buffer.getvalue(), **parts})
    torch.testing.assert_close(load_model(path)(images), network(images))


@pytest.mark.parametrize("stored", ["WEIGHT_0", "weight_0", "Weight_0"])
def test_a_weight_that_is_a_pickle(program, bomb, marker, tmp_path, stored):
    config = json.loads(program[CONFIG])
    next(iter(config["config"].values())).update(path_name="weight_0", use_pickle=True)
    parts = {part: c for part, c in program.items() if part != "data/weights/weight_0"}
    parts |= {CONFIG: json.dumps(config).encode(), f"data/weights/{stored}": bomb}
    path = write(tmp_path / "a.pt2", parts)
    assert falls_for_it(path, marker)
    message = "a pickled object in" if stored == "weight_0" else "no part of a program|it lacks"
    assert_refused(path, marker, message)


@pytest.mark.parametrize("both", [("weight_0", "WEIGHT_0"), ("WEIGHT_0", "weight_0")])
def test_parts_whose_names_differ_in_case_alone(program, bomb, marker, tmp_path, both):
    rest = {part: c for part, c in program.items() if part != "data/weights/weight_0"}
    contents = {"weight_0": program["data/weights/weight_0"], "WEIGHT_0": bomb}
    parts = {f"data/weights/{name}": contents[name] for name in both}
    assert_refused(write(tmp_path / "a.pt2", {**parts, **rest}), marker, "is there twice")


def test_parts_that_are_there_twice_or_lead_elsewhere(program, bomb, marker, tmp_path):
    path = write(tmp_path / "a.pt2", {"data/sample_inputs/model.pt": bomb})
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore", UserWarning)  # of the name that is there twice
        for part, content in program.items():
            archive.writestr(f"model/{part}", content)
    assert_refused(path, marker, "is there twice")
    for name in ("../x", "data/../weights/x", "data//../../x", "a\\b", "a/./b"):
        path = write(tmp_path / "b.pt2", {**program, name: bomb})
        assert_refused(path, marker, "leads out of the archive")


def expressions(command):
    yield f"__import__('os').system('{command}')"
    yield f"Symbol(__import__('os').system('{command}'))"
    yield f"Symbol('s31', positive=__import__('os').system('{command}'))"
    yield f'Symbol(\'__import__("os").system("{command}")\')'
    yield f"().__class__.__base__.__subclasses__() or '{command}'"
    yield "Symbol.__init__"
    yield f'sympify(\'__import__("os").system("{command}")\')'
    yield f'lambdify(1, \'__import__("os").system("{command}")\')'
    yield f"[x for x in (__import__('os').system('{command}'),)][0]"
    yield "Pow(Pow(Pow(Integer(9), Integer(9)), Integer(9)), Integer(9))"
    yield "9**9**9**9"
    yield "Symbol('s31')" + "+1" * 5000
    yield "(" * 900 + "s31" + ")" * 900
    yield "exit"
    yield "1e999"


def test_expressions_are_not_evaluated(program, marker, tmp_path):
    tried = 0
    sizes = ("tensor_values", "input", "sizes", 0, "as_expr", "expr_str")
    for expression in expressions(f"touch {marker}"):
        parts = edited(program, lambda c, e=expression: set_path(graph(c), e, *sizes))
        path = write(tmp_path / "a.pt2", parts)
        if not tried:
            assert falls_for_it(path, marker)
        assert_refused(path, marker, "it holds the expression")
        tried += 1
    assert tried == 15


@pytest.mark.parametrize(
    "expression", ["Symbol('s31', integer=True, positive=True)", "Integer(3)", "s31"]
)
def test_expressions_of_sizes_are(program, tmp_path, images, expression):
    sizes = ("tensor_values", "relu", "sizes", 0, "as_expr", "expr_str")
    path = write(
        tmp_path / "a.pt2", edited(program, lambda c: set_path(graph(c), expression, *sizes))
    )
    assert load_model(path)(images).shape == (3, 10)


def first_call(target, *arguments):
    """Put a call before the first node of a graph."""

    def edit(content):
        node = {
            "target": target,
            "inputs": [{"name": "", "arg": a, "kind": 1} for a in arguments],
            "outputs": [{"as_tensor": {"name": "evil"}}],
            "metadata": {},
            "is_hop_single_tensor_return": None,
            "name": "evil",
        }
        graph(content)["nodes"].insert(0, node)
        graph(content)["tensor_values"]["evil"] = graph(content)["tensor_values"]["relu"]

    return edit


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.serialization.os.system",
        "torch.load",
        "torch.ops.load_library",
        "torch.ops.aten.__class__.__init__",
        "torch.ops.aten.relu.op",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.from_file.out",
        "torch.ops.aten.save.default",
        "torch.ops.image.write_file.default",
        "torch.ops.debugprims.load_tensor.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.ops.higher_order.while_loop",
        "_operator.attrgetter",
        "_operator.methodcaller",
        "_operator.pow",
        "math.factorial",
        "#aten:x",
    ],
)
def test_operators_that_are_none_of_a_network(program, marker, tmp_path, target):
    command = {"as_string": f"touch {marker}"}
    path = write(tmp_path / "a.pt2", edited(program, first_call(target, command)))
    assert_refused(path, marker, "it holds the operator|does not have")


def test_a_graph_that_maps_a_file(program, images, marker, tmp_path):
    def edit(content):
        first_call("torch.ops.aten.from_file.default")(content)
        graph(content)["nodes"][0]["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(marker)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 4}, "kind": 1},
        ]

    path = write(tmp_path / "a.pt2", edited(program, edit))
    assert falls_for_it(path, marker, images=images)
    assert_refused(path, marker, r"the operator 'torch\.ops\.aten\.from_file\.default'")


def test_guards_are_not_compiled(program, network, images, marker, tmp_path):
    guard = f"__import__('os').system('touch {marker}') == 0"
    path = write(tmp_path / "a.pt2", edited(program, lambda c: c.update(guards_code=[guard])))
    assert falls_for_it(path, marker, images=images)
    torch.testing.assert_close(load_model(path)(images), network(images))
    assert not marker.exists()


def renamed(content, old, new):
    """Give a value of the graph another name, everywhere."""
    text = json.dumps(content).replace(json.dumps(old), json.dumps(new))
    content.clear()
    content.update(json.loads(text))


def test_names_do_not_become_code(program, marker, tmp_path):
    code = f"x = __import__('os').system('touch {marker}'); y"
    for name in (code, "a\nimport os", "a(b)", "__import__", "torch", "self", "a b"):
        parts = edited(program, lambda c, n=name: renamed(c, "relu", n))
        assert_refused(write(tmp_path / "a.pt2", parts), marker, "a value called|the name|argument")
    for name in ('0"), __import__("os"), ("', "__class__.x", "a.__dict__.b"):
        parts = edited(program, lambda c, n=name: renamed(c, "1.weight", n))
        assert_refused(write(tmp_path / "a.pt2", parts), marker, "the text")


def test_containers_do_not_import(program, marker, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    leaf = {"type": None, "context": None, "children_spec": []}
    factory = {"default_factory_module": "evil_module", "default_factory_name": "x"}
    enum = {"__enum__": True, "fqn": "evil_module:x", "name": "x"}
    for kind, context in (
        ("collections.defaultdict", json.dumps({**factory, "dict_context": ["x"]})),
        ("builtins.tuple", json.dumps(enum)),
        ("builtins.dict", json.dumps([enum])),
        ("builtins.dict", json.dumps(["x): pass\nimport evil_module\ndef f("])),
        ("collections.OrderedDict", '["x"]'),
        ("torch.nn.Module", "null"),
    ):
        spec = json.dumps([1, {"type": kind, "context": context, "children_spec": [leaf]}])
        for key in ("in_spec", "out_spec"):
            place = ("graph_module", "module_call_graph", 0, "signature", key)
            parts = edited(program, lambda c, s=spec, p=place: set_path(c, s, *p))
            path = write(tmp_path / "a.pt2", parts)
            assert_refused(path, marker, "it holds inputs or outputs")
    assert "evil_module" not in sys.modules


def test_custom_objects_and_further_parts(program, bomb, marker, tmp_path):
    config = json.dumps({"config": {"x": {"path_name": "custom_obj_0", "use_pickle": True}}})
    place = "data/constants/model_constants_config.json"
    assert_refused(
        write(tmp_path / "a.pt2", {**program, place: config}), marker, "an object called"
    )
    for part in (
        "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0",
        "data/aotinductor/model/a.so",
        "data/weights/other.pt",
        "Models/model.json",
        "models/other.json",
        "data/weights/weight_0.pt",
        "data.pkl",
    ):
        path = write(tmp_path / "b.pt2", {**program, part: bomb})
        assert_refused(path, marker, "which is no part of a program of tensors|is there twice")


def test_a_range_that_would_be_counted_to(program, marker, tmp_path):
    limits = {"min_val": 1, "max_val": None}
    parts = edited(program, lambda c: c["range_constraints"].update(u999999999999=limits))
    assert_refused(write(tmp_path / "a.pt2", parts), marker, "a range of 'u999999999999'")


def test_an_early_archive(network, images, bomb, marker, tmp_path):
    """The pickles of archives of before PyTorch 2.8 are read as tensors and written anew."""
    parts = {"serialized_exported_program.json": b"{}", "version": b"8.9"}
    parts |= {"serialized_state_dict.pt": bomb}
    path = write(tmp_path / "a.pt2", parts, folder="")
    assert_refused(path, marker, r"a pickled object in serialized_state_dict\.pt")
    parts["serialized_state_dict.json"] = parts.pop("serialized_state_dict.pt")
    path = write(tmp_path / "b.pt2", parts, folder="")
    assert_refused(path, marker, "which is no part of a program of tensors")


def test_a_json_that_nests_without_end(program, marker, tmp_path):
    path = write(tmp_path / "a.pt2", {**program, MODEL: b"[" * 100_000})
    assert_refused(path, marker, r"its models/model\.json is not of the form")


def test_what_is_trusted_is_loaded_as_it_is(program, network, images, tmp_path, capsys):
    path = write(tmp_path / "a.pt2", {**program, "data/notes/x": b"mine"})
    with pytest.raises(MixsolveError, match=r"load it with trust=True \(--trust\)"):
        load_model(path)
    torch.testing.assert_close(load_model(path, trust=True)(images), network(images))
    arguments = ["audit", "--models", str(path), "--data", "digits", "--eps", "0.1"]
    arguments += ["--limit", "4", "--steps", "1", "--attacks", "pgd", "--out", str(tmp_path / "o")]
    assert main(arguments) == 2
    assert "--trust" in capsys.readouterr().err
    assert main([*arguments, "--trust"]) in (0, 1)


# TorchScript

EXPRESSIONS = {
    "torch": "torch.from_file({path}, True, 4)",
    "ops": "ops.aten.from_file({path}, True, 4)",
    "dot and space": "torch . from_file({path}, True, 4)",
    "dot and line": "torch.\\\n    from_file({path}, True, 4)",
    "dot and comment": "(torch. # c\n    from_file)({path}, True, 4)",
    "getattr": 'getattr(torch, "from_file")({path}, True, 4)',
    "getattr of ops": 'getattr(getattr(ops, "aten"), "from_file")({path}, True, 4)',
    "escaped": 'getattr(torch, "fr\\157m_file")({path}, True, 4)',
    "joined": 'getattr(torch, "from_" "file")({path}, True, 4)',
    "joined at once": "getattr(torch, \"from_\"'file')({path}, True, 4)",
    "joined thrice": 'getattr(torch, "fr" "" "om_" "file")({path}, True, 4)',
    "joined and escaped": 'getattr(torch, "fr\\157m" "_\\146ile")({path}, True, 4)',
    "joined over lines": 'getattr(torch, "from_" # it\'s\n    "file")({path}, True, 4)',
    "in threes": 'getattr(torch, """from_file""")({path}, True, 4)',
}


def scripted(script, body):
    code = next(part for part in script if part.endswith(".py"))
    head = script[code].decode().partition("  def forward")[0]
    return {**script, code: (head + body).encode()}


FORWARD = "  def forward(self,\n    x: Tensor) -> Tensor:\n    y = {}\n    return y\n"


@pytest.mark.parametrize("form", EXPRESSIONS)
def test_scripts_that_map_a_file(script, marker, tmp_path, form):
    expression = EXPRESSIONS[form].format(path=f'"{marker}"')
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(expression)))
    assert falls_for_it(path, marker, torch.jit.load, torch.ones(2, 4))
    assert_refused(path, marker, "(reads and writes files|not PyTorch's own): code/__torch__")


@pytest.mark.parametrize(
    "statement",
    [
        "torch.save(x, {path})",
        "ops.aten.save(x, {path})",
        'getattr(torch, "sa" "ve")(x, {path})',
        'getattr(torch, "s\\141ve")(x, {path})',
        "torch. # c\\\n    save(x, {path})",
    ],
)
def test_scripts_that_save(script, marker, tmp_path, statement):
    statement = statement.format(path=f'"{marker}"')
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(statement)))
    assert_refused(path, marker, "writes files: code/__torch__")


def test_scripts_that_write_a_file_while_they_are_loaded(marker, tmp_path):
    class Writes(torch.nn.Module):
        def __init__(self, path: str):
            super().__init__()
            self.path = path
            self.mapped = torch.zeros(4)

        @torch.jit.export
        def __getstate__(self):
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]):
            self.path = state[0]
            self.training = state[1]
            self.mapped = torch.from_file(state[0], True, 4)
            self.mapped.copy_(torch.ones(4))

        def forward(self, x):
            return x

    path = tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(Writes(str(marker))), path)
    assert falls_for_it(path, marker, torch.jit.load)
    assert_refused(path, marker, "since loading or calling it reads and writes files")


@pytest.mark.parametrize(
    "expression",
    [
        "ops.image.write_file(x, {path})",
        'getattr(ops, "image").write_file(x, {path})',
        "ops .image.write_file(x, {path})",
        "ops.#c\n    image.write_file(x, {path})",
        "ops.debugprims.load_tensor({path}, [1], [1], dtype=None, device=None)",
    ],
)
def test_scripts_that_call_operators_of_other_libraries(script, marker, tmp_path, expression):
    call = expression.format(path=f'"{marker}"')
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(call)))
    assert_refused(path, marker, "operators that are not PyTorch's own: code/__torch__")


@pytest.mark.parametrize(
    "name",
    [
        "__torch__.torch.classes.c10d.ProcessGroup",
        "__torch__.torch.classes.profiling.SourceRef",
        'getattr(__torch__.torch, "classes").c10d.ProcessGroup',
        'getattr(__torch__, "torch").classes.c10d.ProcessGroup',
        "__torch__ .torch.classes.c10d.ProcessGroup",
    ],
)
def test_scripts_that_name_classes_of_others(script, marker, tmp_path, name):
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(f"{name}()")))
    assert_refused(path, marker, "classes that are not its own: code/__torch__")


@pytest.mark.parametrize("part", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize("split", ["classes.c10d\nProcessGroup", "classes\nc10d.ProcessGroup"])
def test_pickles_of_scripts_that_name_classes_of_others(script, marker, tmp_path, part, split):
    content = b"\x80\x02c__torch__.torch." + split.encode() + b"\n)\x81."
    assert_refused(
        write(tmp_path / "a.pt", {**script, part: content}), marker, rf"not its own: {part}"
    )


def test_what_pytorch_does_not_need_is_not_given_to_it(script, bomb, marker, tmp_path):
    more = {
        "model.json": b"{}",
        "attributes.pkl": bomb,
        "extra/x": bomb,
        "code/x.py.debug_pkl": bomb,
    }
    path = write(tmp_path / "a.pt", {**script, **more})
    x = torch.ones(2, 4, 1)
    torch.testing.assert_close(load_model(path)(x), x.flatten(1))
    assert not marker.exists()
    for part in more:
        assert not script_scan.is_part(part)


def test_scripts_of_networks_are_not_taken_for_hostile(tmp_path):
    class Words(torch.nn.Module):
        """Names and strings that come near to what is searched for."""

        def __init__(self):
            super().__init__()
            self.classes = 10
            self.ops = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
            self.save_at = 3

        def forward(self, x):
            assert x.dim() > 1, "reduction must be 'sum', \"mean\" or\n\t'none' \u2014 10 classes"
            return self.ops(x) + self.classes * self.save_at

    with torch.random.fork_rng(devices=[]):
        model = Words()
    torch.jit.save(torch.jit.script(model), tmp_path / "a.pt")
    x = torch.ones(2, 4)
    torch.testing.assert_close(load_model(tmp_path / "a.pt")(x), model(x))


def test_scripts_that_are_trusted(script, marker, tmp_path):
    expression = EXPRESSIONS["torch"].format(path=f'"{marker}"')
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(expression)))
    load_model(path, trust=True)(torch.ones(2, 4))
    assert marker.exists()


def test_no_other_operator_of_pytorch_takes_a_path():
    """What is searched for by name is what PyTorch registers, also in versions to come."""
    allowed = ("aten::", "prim::", "quantized::", "torchvision::", "quantized_decomposed::")
    found = {s.name for s in torch._C._jit_get_all_schemas() if takes_path(s)}
    assert {name for name in found if name.startswith(allowed)} == {"aten::from_file", "aten::save"}


# Weights


def test_weights_that_are_no_weights(script, marker, tmp_path):
    """Before PyTorch 2.6, torch.load ran these, whatever it was told about weights."""
    expression = EXPRESSIONS["torch"].format(path=f'"{marker}"')
    path = write(tmp_path / "a.pt", scripted(script, FORWARD.format(expression)))
    assert_refused(f"mixsolve_torch:digits_cnn={path}", marker, "broken or holds a pickled object")
    with pytest.raises(ValueError, match="a TorchScript archive"):
        archives.load_tensors(path)
    with tarfile.open(tmp_path / "b.pt", "w") as tar:
        pickled = pickle.dumps(Evil(marker))
        tar.addfile(tarfile.TarInfo("pickle"), io.BytesIO(pickled))
    assert_refused(f"mixsolve_torch:digits_cnn={tmp_path / 'b.pt'}", marker, "broken or holds")
    with pytest.raises(ValueError, match="a tar archive"):
        archives.load_tensors(tmp_path / "b.pt")


def test_a_message_about_a_million_keys_is_short(tmp_path):
    zero = torch.zeros(1)
    torch.save({f"key_{i}": zero for i in range(100_000)}, tmp_path / "a.pt")
    with pytest.raises(MixsolveError, match=r"Unexpected key\(s\).* and 99,992 more") as caught:
        load_model(f"mixsolve_torch:digits_cnn={tmp_path / 'a.pt'}")
    assert len(str(caught.value)) < 2000
    nested = "x"
    for _ in range(18):  # a text of millions of letters
        nested = (nested, nested)
    torch.save({nested: zero, "\x1b[2J" + "y" * 10**6: zero}, tmp_path / "b.pt")
    torch.save({"\x1b[2J" + "y" * 10**6: zero}, tmp_path / "c.pt")
    for spec in (
        f"mixsolve_torch:digits_cnn={tmp_path / 'b.pt'}",
        f"mixsolve_torch:digits_cnn={tmp_path / 'c.pt'}",
        str(tmp_path / "b.pt"),
    ):
        with pytest.raises(MixsolveError) as caught:
            load_model(spec)
        assert len(str(caught.value)) < 2000
        assert "\x1b" not in str(caught.value)


# Zip bombs


@pytest.mark.parametrize("name", ["a.pt", "a.pt2", "state"])
def test_archives_that_unpack_to_too_much(script, program, tmp_path, name, monkeypatch):
    monkeypatch.setattr("mixsolve.base.files.UNPACKED_BYTES", 10**6)
    parts = program if name == "a.pt2" else script if name == "a.pt" else {"data.pkl": b""}
    path = write(tmp_path / name, parts)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/0", bytes(10**7))
    spec = f"mixsolve_torch:digits_cnn={path}" if name == "state" else path
    with pytest.raises(MixsolveError, match=r"unpack to 10,[0-9,]+, above the cap of 1,000,000"):
        load_model(spec)
