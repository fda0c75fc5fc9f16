"""Pickles that call, build, confuse or exhaust."""

from building import (Case, Member, PtModel, call, dict_of, integer, list_of, little, name_of, pickled, storage, text,
                      tuple_of, zip_file)

# Pickles that run code when Python loads them; the shell command of a payload would leave a file behind.
CANARY = "touch hostile-canary"
CALLS = """os.system posix.system nt.system os.popen os.execv os.spawnl os.remove os.putenv posixpath.os.system
subprocess.Popen subprocess.call subprocess.check_output subprocess.run builtins.eval builtins.exec builtins.compile
builtins.getattr builtins.setattr builtins.__import__ builtins.open builtins.globals builtins.map builtins.filter
builtins.breakpoint builtins.input builtins.help __builtin__.eval __builtin__.execfile __builtin__.apply
__builtins__.eval builtins.str.format importlib.import_module importlib.reload importlib._bootstrap._load
imp.load_source runpy.run_path runpy._run_code webbrowser.open pip.main pip._internal.main pty.spawn socket.socket
socket.create_connection
shutil.rmtree shutil.copy sys.modules.clear sys.settrace ctypes.CDLL ctypes.memmove _ctypes.dlopen cffi.FFI
pickle.loads _pickle.loads cPickle.loads dill.loads cloudpickle.loads joblib.load shelve.open marshal.loads
code.interact code.InteractiveInterpreter.runcode codeop.compile_command pdb.run bdb.Bdb.run timeit.timeit
timeit.Timer trace.Trace.run cProfile.run profile.run doctest.testmod multiprocessing.Process threading.Thread
_thread.start_new_thread asyncio.run commands.getoutput popen2.popen3 urllib.request.urlretrieve urllib2.urlopen
requests.get http.client.HTTPConnection ftplib.FTP smtplib.SMTP telnetlib.Telnet tempfile.mktemp zipimport.zipimporter
pkgutil.get_loader inspect.getattr_static gc.get_objects site.main setuptools.sandbox.run_setup distutils.spawn.spawn
lib2to3.pgen2.grammar.Grammar.loads idlelib.pyshell.ModifiedInterpreter.runcommand operator.attrgetter
operator.methodcaller _operator.itemgetter functools.partial functools.reduce io.open io.FileIO codecs.open torch.load
torch.serialization.load torch.hub.load torch.hub.load_state_dict_from_url torch.jit.load torch.package.PackageImporter
torch.utils.cpp_extension.load_inline torch.storage._load_from_bytes torch.utils.model_zoo.load_url
torch.utils.collect_env.run torch.ops.load_library torch.classes.load_library torch.multiprocessing.spawn
torch.distributed.rpc.rpc_sync torch._inductor.codecache.compile_file numpy.load numpy.fromfile numpy.memmap
numpy.lib.npyio.load numpy.f2py.compile numpy.distutils.exec_command.exec_command numpy.ctypeslib.load_library
numpy.testing._private.utils.runstring pandas.read_pickle pandas.eval yaml.load yaml.unsafe_load types.FunctionType
types.CodeType linecache.getline logging.config.listen antigravity.geohash pydoc.pipepager pydoc.locate
ensurepip.bootstrap venv.create zipapp.create_archive xmlrpc.client.ServerProxy socketserver.TCPServer ssl.wrap_socket
signal.signal fcntl.ioctl mmap.mmap sqlite3.connect unittest.main atexit.register IPython.embed paramiko.SSHClient
pexpect.spawn""".split()


def in_model(payload):
    def build(folder):
        model = PtModel()
        model.model["decoder.version"] = payload
        model.write(folder)
    return build


def in_cfg(payload):
    def build(folder):
        model = PtModel()
        model.top["extra_state"] = dict_of({"train_iterator": payload})
        model.write(folder)
    return build


def whole(pickle):
    """The pickle is all of data.pkl."""
    return lambda folder: PtModel().write(folder, pickle() if callable(pickle) else pickle)


def calls():
    for name in CALLS:
        yield Case("call " + name, (name, "run code"), in_model(call(name, text(CANARY))))
    for name in CALLS[::7]:
        yield Case("call outside of the model " + name, (name, "run code"), in_cfg(call(name, text(CANARY))))
    for name in ("numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.dtype",
                 "copyreg._reconstructor", "copyreg.__newobj__", "metaseq.tasks.Task", "torch._utils._rebuild_qtensor",
                 "torch._utils._rebuild_sparse_tensor", "torch._tensor._rebuild_from_type_v2", "torch.nn.Linear"):
        yield Case("numbers built by " + name, (name, "not a tensor"), in_model(call(name, text("x"))))


def hidden_calls():
    system = name_of("posix.system")
    opaque = name_of("metaseq.x.Thing") + b")\x81"
    words = ("posix.system", "run code")
    yield Case("newobj of a function", words, in_model(system + tuple_of(text(CANARY)) + b"\x81"))
    yield Case("argument of a call", words, in_cfg(call("metaseq.x.apply", system, text(CANARY))))
    yield Case("nested argument", words, in_cfg(call("metaseq.x.apply", tuple_of(list_of(system)), text(CANARY))))
    yield Case("result of a call called", words,
               in_cfg(call("metaseq.x.f", system) + tuple_of(text(CANARY)) + b"R"))
    yield Case("state of an object", words, in_cfg(opaque + dict_of({"__setstate__": system}) + b"b"))
    yield Case("state itself", words, in_cfg(opaque + system + b"b"))
    yield Case("state of a dictionary", words, in_cfg(call("collections.OrderedDict") + dict_of({"x": system}) + b"b"))
    yield Case("key of a dictionary", words, in_cfg(b"}" + system + integer(1) + b"s"))
    yield Case("item of a list", words, in_cfg(list_of(system)))
    yield Case("by way of the memo", words, in_cfg(system + b"q\x05" + tuple_of(text(CANARY)) + b"R"))
    yield Case("fetched from the memo", words,
               in_cfg(tuple_of(system + b"q\x05", b"h\x05" + tuple_of(text(CANARY)) + b"R")))
    yield Case("item set on an object", words, in_cfg(opaque + text("run") + system + b"s"))
    yield Case("item appended to an object", words, in_cfg(opaque + system + b"a"))
    yield Case("getattr of a module", ("builtins.getattr",),
               in_cfg(call("builtins.getattr", name_of("os.path"), text("os"))))
    yield Case("import by name", ("builtins.__import__",), in_cfg(call("builtins.__import__", text("os"))))
    yield Case("type made at run time", ("builtins.type",),
               in_cfg(call("builtins.type", text("X"), tuple_of(), dict_of({}))))
    yield Case("default dictionary of a function", ("builtins.eval",),
               in_cfg(call("collections.defaultdict", name_of("builtins.eval"))))
    yield Case("storage of a function", ("posix.system",), in_model(
        tuple_of(text("storage"), system, text("0"), text("cpu"), integer(1)) + b"Q"))


def opcodes():
    quoted = {"INST": b"(" + text(CANARY) + b"iposix\nsystem\n",
              "STACK_GLOBAL": text("posix") + text("system") + b"\x93"}
    for opcode, body in quoted.items():
        yield Case("opcode " + opcode, ("posix.system", opcode), in_model(body + b")R"))
    computed = text("pos") + b"q\x01" + b"0" + text("ix") + b"h\x01" + b"\x93"
    yield Case("names put together on the stack", ("POP",), in_model(computed))
    plain = {"OBJ": b"(" + name_of("posix.system") + text(CANARY) + b"o", "EXT1": b"\x82\x01", "EXT2": b"\x83\x01\x00",
             "EXT4": b"\x84\x01\x00\x00\x00", "PERSID": b"Pstorage\n", "GET": b"g0\n", "PUT": b"Np0\n", "POP": b"NN0",
             "POP_MARK": b"N(N1", "DUP": b"N2", "INT": b"I1\n", "LONG": b"L1L\n", "FLOAT": b"F1.0\n",
             "STRING": b"S'x'\n",
             "UNICODE": b"Vx\n", "FRAME": b"\x95" + little(8, 8), "MEMOIZE": b"N\x94",
             "LONG4": b"\x8b" + little(1, 4) + b"\1",
             "BYTEARRAY8": b"\x96" + little(1, 8) + b"x", "NEXT_BUFFER": b"\x97", "READONLY_BUFFER": b"\x98",
             "NEWOBJ_EX": name_of("metaseq.x.T") + b")}\x92", "SHORT_BINUNICODE": b"\x8c\x01x",
             "BINUNICODE8": b"\x8d" + little(1, 8) + b"x", "BINBYTES8": b"\x8e" + little(1, 8) + b"x",
             "BINBYTES": b"B\1\0\0\0x",
             "SHORT_BINBYTES": b"C\1x", "EMPTY_SET": b"\x8f", "ADDITEMS": b"\x8f(N\x90", "FROZENSET": b"(N\x91",
             "DICT": b"(NNd", "LIST": b"(NNl"}
    for opcode, body in plain.items():
        wanted = "EMPTY_SET" if opcode == "ADDITEMS" else opcode
        yield Case("opcode " + opcode, (wanted, "refused"), in_model(body))
    yield Case("opcode ADDITEMS alone", ("ADDITEMS",), in_model(b"(N\x90"))
    yield Case("no opcode", ("0xff", "not an opcode"), in_model(b"\xff"))


def headers():
    body = dict_of({"model": dict_of({})}) + b"."
    yield Case("protocol 0", ("protocol version",), whole(b"(dS'model'\n(dsp0\n."))
    yield Case("protocol 1, without a header", ("protocol version",), whole(body))
    for version in (0, 1, 3, 4, 5, 255):
        yield Case(f"protocol {version} said", ("protocol", str(version)), whole(b"\x80" + bytes([version]) + body))
    yield Case("frames", ("protocol", "4"), whole(b"\x80\x04\x95" + little(len(body), 8) + body))
    yield Case("frame of protocol 2", ("FRAME",), whole(b"\x80\x02\x95" + little(len(body), 8) + body))
    yield Case("second header", ("protocol", "5"), whole(b"\x80\x02\x80\x05" + body))
    yield Case("empty pickle", ("cut",), whole(b""))
    yield Case("header alone", ("cut",), whole(b"\x80\x02"))
    yield Case("no end", ("cut",), whole(b"\x80\x02" + body[:-1]))
    yield Case("second pickle behind the first", ("one value",), whole(pickled(b"N") + pickled(call("posix.system"))))
    yield Case("two values", ("one value",), whole(b"\x80\x02NN."))
    yield Case("no value", ("one value",), whole(b"\x80\x02."))
    yield Case("open mark", ("one value",), whole(b"\x80\x02N(."))
    yield Case("no model", ("model",), whole(pickled(dict_of({"weights": dict_of({})}))))
    yield Case("list instead of a model", ("dictionary",), whole(pickled(list_of(integer(1)))))


def damage():
    yield Case("empty memo", ("memo",), in_model(b"h\x63"))
    yield Case("empty memo, long", ("memo",), in_model(b"j\xff\xff\xff\xff"))
    yield Case("memo of an empty stack", ("empty stack",), whole(b"\x80\x02q\x00."))
    yield Case("text of 4 GiB", ("cut",), in_model(b"X\xff\xff\xff\xffx"))
    yield Case("name without end", ("name",), whole(b"\x80\x02cposix" + b"x" * 5000))
    yield Case("name with control characters", ("plain text",), in_model(b"cposix\x1b[2J\nsystem\n"))
    yield Case("name in another script", ("plain text",), in_model("cp\u043esix\nsystem\n".encode()))
    yield Case("stack underflow", ("empty stack",), whole(b"\x80\x02R."))
    yield Case("stack underflow under a mark", ("empty stack",), whole(b"\x80\x02N(\x85."))
    yield Case("no mark", ("mark",), whole(b"\x80\x02Nt."))
    yield Case("key without a value", ("key",), in_model(b"}(" + text("x") + b"u"))
    yield Case("items of a tuple", ("not a dict",), in_model(b")" + text("x") + b"Ns"))
    yield Case("items of a tensor", ("not a dict",), in_model(storage("0", 640) + text("x") + b"Ns"))
    yield Case("append to a dictionary", ("not a list",), in_model(b"}Na"))
    yield Case("append to a text", ("not a list",), in_model(text("x") + b"(Ne"))
    yield Case("state of a number", ("attributes",), in_model(integer(1) + b"}b"))
    yield Case("state of a text", ("attributes",), in_model(text("x") + b"}b"))
    yield Case("arguments that are no tuple", ("tuple",), in_model(name_of("posix.x") + list_of() + b"R"))
    yield Case("call of a text", ("not a name",), in_model(text("posix.system") + b")R"))
    yield Case("call of a tuple", ("not a name",), in_model(b"))R"))
    yield Case("dictionary of no pairs", ("pairs",), in_model(call("collections.OrderedDict", list_of(integer(1)))))
    yield Case("dictionary of two arguments", ("OrderedDict",), in_model(call("collections.OrderedDict", b"]", b"]")))
    yield Case("size of a text", ("torch.Size",), in_model(call("torch.Size", text("x"))))


def exhaustion():
    yield Case("marks 300 deep", ("deeper",), in_model(b"(" * 300))
    yield Case("marks a million deep", ("deeper",), in_model(b"(" * 1_000_000))
    yield Case("tuples 200 000 deep", ("not a tensor",), in_model(b")" + b"\x85" * 200_000))
    yield Case("dictionaries 50 000 deep", ("not a tensor",),
               in_model((b"}" + text("x")) * 50_000 + b"N" + b"s" * 50_000))
    yield Case("cycle of a list", ("not a tensor",), in_model(b"]q\x01h\x01a"))
    yield Case("cycle of a dictionary", ("not a tensor",), in_model(b"}q\x01" + text("x") + b"h\x01s"))
    yield Case("model inside of itself", ("not a tensor",), lambda folder: PtModel().write(
        folder, pickled(b"}" + text("model") + b"}q\x01" + text("decoder.version") + b"h\x01ss")))
    yield Case("billion laughs", ("not a tensor",), in_model(
        b"]q\x00" + b"".join(b"](" + (b"h" + bytes([i])) * 10 + b"eq" + bytes([i + 1]) for i in range(30))))
    yield Case("eleven million opcodes", ("opcodes",), whole(lambda: b"\x80\x02" + b"\x80\x02" * 11_000_000))
    yield Case("ten million values", ("opcodes",), whole(lambda: b"\x80\x02" + b"N" * 11_000_000))
    yield Case("seven million dictionaries", ("take more than",), whole(lambda: b"\x80\x02" + b"}" * 7_000_000))
    yield Case("three million calls", ("opcodes",),
               whole(lambda: b"\x80\x02cx\ny\nq\x00" + b"h\x00)R" * 3_400_000))
    yield Case("million memo entries", ("remembers",),
               whole(lambda: b"\x80\x02N" + b"".join(b"r" + little(i, 4) for i in range(1_000_001))))
    yield Case("text memoised a million times", ("opcodes",), whole(lambda: b"\x80\x02N" + b"q\x00" * 11_000_000))
    yield Case("pickle of 65 MiB", ("at most",), lambda folder: (folder / "model.pt").write_bytes(
        zip_file([Member("archive/data.pkl", bytes(65 << 20))])))
    yield Case("hundred thousand tensors", ("tensors",), whole(lambda: pickled(
        storage("0", 640) + b"q\x00(" + (b"ctorch._utils\n_rebuild_tensor_v2\n(h\x00K\x00K\x01\x85K\x01\x85\x89}tR") *
        100_001 + b"t")))


def persistent_ids():
    def pid(*parts):
        return in_model(tuple_of(*parts) + b"Q")
    half = name_of("torch.HalfStorage")
    words = ("storage",)
    yield Case("persistent text", words, in_model(text("x") + b"Q"))
    yield Case("persistent module", words, pid(text("module"), half, text("0"), text("cpu"), integer(640)))
    yield Case("persistent id too short", words, pid(text("storage"), half))
    yield Case("storage without a key", words, pid(text("storage"), half, text(""), text("cpu"), integer(640)))
    yield Case("storage of a negative number", words, pid(text("storage"), half, text("0"), text("cpu"), integer(-1)))
    yield Case("storage of 2^63 elements", words,
               pid(text("storage"), half, text("0"), text("cpu"), integer((1 << 63) - 1)))
    yield Case("storage in another folder", ("missing",), in_model(storage("../../../etc/passwd", 640)))
    yield Case("storage of a long key", words, in_model(storage("0" * 2000, 640)))
    yield Case("storage of an unknown type", ("QInt8Storage",), in_model(storage("0", 640, "QInt8Storage")))
    yield Case("storage told in two ways", ("two ways",), in_model(tuple_of(storage("0", 640), storage("0", 641))))
    yield Case("storage told in two types", ("two ways",),
               in_model(tuple_of(storage("0", 640), storage("0", 640, "FloatStorage"))))
    yield Case("storage that is missing", ("missing",), in_model(storage("99", 640)))


def cases():
    for group in (calls, hidden_calls, opcodes, headers, damage, exhaustion, persistent_ids):
        yield from group()
