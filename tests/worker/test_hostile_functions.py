"""Graphs may name only functions, methods and attributes of a list; a worker calls nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from compiler_daemon.worker.rebuild import rebuild
from tests.worker.hostile_samples import CODE, calling, nodes, refuse
from tests.worker.worker_samples import OUT, X, Y, checked, graph, node


def test_the_graph_without_anything_hostile_is_rebuilt() -> None:
    rebuild(checked(graph()))
    rebuild(checked(nodes(X, Y, OUT, children=["body"], bodies=[1])))


FUNCTIONS = """
os.system posix.system os.popen os.execv os:system builtins.eval builtins.exec builtins.__import__ builtins.open
builtins.getattr builtins.setattr builtins.compile builtins.globals builtins.type builtins.print builtins.input
builtins.map builtins.__dict__ eval exec open __import__ setattr hasattr delattr vars
builtins.getattr(os,'system') operator.attrgetter operator.methodcaller operator.itemgetter operator.call
operator.__call__ _operator.call operator.length_hint importlib.import_module importlib.reload subprocess.run
subprocess.Popen shutil.rmtree pickle.loads marshal.loads ctypes.CDLL socket.socket sys.exit
torch.load torch.save torch.hub.load torch.hub.load_state_dict_from_url torch.from_file torch.compile torch.export
torch.ops.load_library torch.ops.aten.add torch.ops torch.classes torch.classes.load_library torch.classes.a.b
torch.jit.load torch.jit.script torch.jit.trace torch.package.PackageImporter torch.multiprocessing.spawn
torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline torch.utils.data.DataLoader
torch.utils._pytree.tree_map torch.distributed.init_process_group torch.serialization.load torch.os.system torch.sys
torch.__import__ torch.__class__ torch.__dict__ torch.__getattr__ torch.nn.Module torch.Tensor torch.Tensor.apply_
torch.nn.functional.__builtins__ torch.nn.functional.torch.load torch.nn.functional.importlib torch.functional.torch
torch.nn.functional.boolean_dispatch torch.functional.overload torch._from_blob torch._C._jit_pass_inline
torch._C._load_for_lite_interpreter torch._C._dlpack_exchange_api torch.fx.GraphModule torch.fx.Interpreter
torch._C._log_api_usage_once torch._C._log_api_usage_metadata torch.Size.__class__ torch.Size.numel torch.Generator
torch._inductor.codecache.PyCodeCache.load torch._inductor.compile_fx.compile_fx torch._dynamo.optimize
torch.autograd.function.once_differentiable torch.autograd.Function.apply torch.library.custom_op torch.set_vital
math.__loader__ math.__spec__ math.prod math.__doc__
op:os.system op:aten op:aten. op:.add op:aten.add.Tensor.__class__ op:aten.__class__ op:aten.__init__ op:aten.load
op:aten.save op:aten.from_file op:aten.from_file.default op:aten.manual_seed op:aten._from_blob op:aten._dir
op:aten.add.__class__ op:aten.add.op op:aten.add._schemas op:aten.no_such op:prim.PythonOp op:prim.rpc_sync
op:prim.rpc_async op:mine.op op:load_library.x op:_C.x op:user.op.default op:torch_library.load op:aten..add
op:aten.add/../load op:../aten.add op:aten.add\0 op:aten::add op:profiler._record_function_enter_new op:c10d.send
op:symm_mem.x op:streams.x op:debugprims.save_tensor op:debugprims.load_tensor op:rngprims.x op:rngprims
hop:os hop:__class__ hop: hop:triton_kernel_wrapper_mutation hop:print hop:call_torchbind hop:run_const_graph
hop:inline_asm_elementwise hop:aoti_call_delegate hop:executorch_call_delegate hop:with_effects hop:flat_apply
hop:_dir hop:hints_wrap hop:strict_mode : op: . .. ../.. / ~ a/b torch/load torch.load\0 \0
""".replace("\\0", "\0").split()


@pytest.mark.parametrize("name", [*FUNCTIONS, "", " ", "torch.relu ", "torch.relu\n", "TORCH.relu", "a" * 1024, CODE])
def test_only_listed_functions_are_named(name: str) -> None:
    refuse(calling(name))
    refuse(calling("torch.relu", ["n", 0], ["f", name]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", "inplace", ["l", ["f", name]]]))
    refuse(graph(inputs=[["f", name]]))


METHODS = """
__class__ __reduce__ __reduce_ex__ __getattribute__ __init__ __new__ __dict__ __setattr__ __torch_function__
__torch_dispatch__ __subclasshook__ __init_subclass__ __setstate__ __deepcopy__ __array__ __dlpack__ __call__
__del__ __import__ _make_subclass _make_wrapper_subclass as_subclass.x apply_ map_ map2_ numpy numpy.tofile tofile
register_hook register_post_accumulate_grad_hook retain_grad backward data_ptr untyped_storage storage
share_memory_ tolist module_load set_data no_such_method shape grad relu() relu.__class__ relu;x ../relu a/b
""".split()


@pytest.mark.parametrize("name", [*METHODS, "", "relu\n", "\0", "relu(); " + CODE], ids=ascii)
def test_only_tensor_methods_without_side_effects_are_called(name: str) -> None:
    refuse(nodes(X, node("call_method", "y", name, ["n", 0]), OUT))


def test_a_method_is_called_of_a_node() -> None:
    for args in ([], ["text"], [["f", "torch.relu"]], [["l", ["n", 0]]], [["dt", "float32"]]):
        refuse(nodes(X, node("call_method", "y", "relu", *args), OUT))


@pytest.mark.parametrize(
    "name",
    ["__class__", "__dict__", "__init__", "grad_fn", "_base", "register_hook", "data.x", "", "shape\n", "f_globals"],
)
def test_only_listed_attributes_are_read(name: str) -> None:
    refuse(calling("getattr", ["n", 0], name))


def test_an_attribute_is_read_of_a_node_by_a_literal() -> None:
    for args in (
        [["n", 0]],
        [["n", 0], "shape", 1],
        [["f", "torch.relu"], "shape"],
        ["text", "shape"],
        [["n", 0], ["n", 0]],
        [["n", 0], ["l", "shape"]],
    ):
        refuse(calling("getattr", *args))
    refuse(calling("getattr", ["n", 0], "shape", kwargs=["d", "default", 1]))


BACKEND, KERNELS = "torch.nn.attention._backend_from_string", "torch.nn.attention._sdpa_kernel"


@pytest.mark.parametrize(
    "args",
    [["__init__"], ["__subclasses__"], ["mro"], [""], [], ["MATH", "MATH"], [["l", "MATH"]], [["n", 0]], [1]],
    ids=ascii,
)
def test_a_way_to_compute_attention_is_one_of_torchs_by_a_literal(args: list[Any]) -> None:
    rebuild(checked(calling(BACKEND, "MATH")))
    refuse(calling(BACKEND, *args))
    refuse(calling(BACKEND, kwargs=["d", "name", "MATH"]))
    refuse(calling("torch.relu", ["n", 0], ["f", BACKEND]))


@pytest.mark.parametrize(
    "args",
    [
        [["l", ["n", 0]], False],
        [["l", 1, 2, 3, 4, 5], True],
        [["l", ["n", 1], 7], True],
        [["n", 1], False],
        ["MATH", False],
        [["l", ["n", 1]], ["n", 0]],
        [["l", ["n", 1]], 1],
        [["l", ["n", 1]]],
        [["d", "a", ["n", 1]], True],
        [],
    ],
    ids=ascii,
)
def test_kernels_of_attention_are_chosen_by_their_names_alone(args: list[Any]) -> None:
    def choosing(*args: Any) -> Any:
        return nodes(
            X, node("call_function", "way", BACKEND, "MATH"), node("call_function", "chosen", KERNELS, *args), OUT
        )

    rebuild(checked(choosing(["l", ["n", 1]], True)))
    refuse(choosing(*args))
    refuse(calling("torch.relu", ["n", 0], ["f", KERNELS]))


def test_the_bare_slice_cuts_the_result_of_another_node_and_nothing_else() -> None:
    name = "op:aten.slice"

    rebuild(checked(calling(name, ["n", 0], 1, 0, 2)))
    refuse(calling(name, "some text", 0, 3))
    refuse(calling(name, ["l", "some", "text"], 0, 1))
    refuse(calling("torch.relu", ["n", 0], ["f", name]))
    refuse(graph(inputs=[["f", name]]))
