"""What the house rules allow: limits, owners and exceptions. Every exception says why."""

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
PARAMETERS_MAX = 6
LINE_COLUMNS_MAX = 120
FOLDER_FILES_MAX = 34  # lying in the folder itself; data and corpora of fuzzers are not counted

# Components whose names are in the namespace `optserve` itself, since every layer uses them.
COMPONENTS_OF_EVERY_LAYER = ['base', 'tensor']
# Files with functions that are looked up in the namespace of another component's types, or that only name such a type.
NAMESPACES_OF_OTHERS = ['libs/protocol/message_types.h', 'libs/client/async_client.h',
                        'libs/engine/weight_source.h']

# Third-party headers and the only places that include them. Tests, fuzzers and benchmarks may include anything.
HEADER_OWNERS = [
    (r'zmq(_addon)?\.hp?p?$', ['libs/transport/']),
    (r'sodium\.h$', ['libs/keys/']),
    (r'msgpack', ['libs/protocol/']),
    (r'prometheus/', ['libs/metrics/']),
    (r'event2/', ['libs/http/']),
    (r'spdlog/', ['libs/base/log.cc']),
    (r'CLI/', ['libs/base/config.cc']),
    (r'yaml-cpp/', ['libs/base/config_sources.cc']),
    (r'sqlite3\.h$', ['libs/journal/']),
    (r'libpq-fe\.h$', ['libs/journal/postgres/']),
    (r'openssl/', ['libs/base/sha256.cc', 'libs/http/tls.cc']),
    (r'nlohmann/', ['libs/base/log.cc', 'libs/base/program.cc', 'libs/audit/', 'libs/protocol/protocol_',
                   'libs/model_spec/', 'libs/checkpoint/', 'libs/tokenizer/', 'libs/workload/', 'libs/job_json/',
                   'libs/http_api/', 'libs/batches/', 'services/converter/', 'services/cli/', 'services/gateway/',
                   'services/worker/bench_']),
    (r'(?<!/)seccomp\.h$', ['libs/confinement/seccomp_filter.cc']),
    (r'histedit\.h$', ['services/cli/prompt/terminal_lines.cc']),
    (r'^isa-l/', ['libs/checkpoint/torch/crc32.cc']),
    (r'(cblas|openblas.*)\.h$', ['libs/backend/cpu/']),
    (r'nccl\.h$', ['libs/comm/nccl']),
    (r'(cuda|cublas|cooperative_groups|cub/|thrust/|nvtx3/)', ['libs/backend/cuda/', 'libs/comm/nccl', 'kernels/']),
    (r'(gtest|gmock)/', ['libs/backend/backend_fixture.h', 'libs/comm/run_ranks.h',  # shared by tests
                          'libs/comm/tcp/test_peers.h',
                          'libs/http_api/openai/request_fixture.h']),
    (r'benchmark/', []),
    (r'optserve/', ['docs/examples/cpp/']),  # the installed client library
    (r'ext/pb_ds/', ['services/scheduler/queue/fair_queue.h']),  # of libstdc++: a map that knows ranks
]
# Folders of system headers; any other <folder/header> needs a row above.
SYSTEM_HEADER_FOLDERS = ['arpa/', 'linux/', 'netinet/', 'sys/']

# Headers of libs/ that kernels may include: plain data without a library behind it.
KERNEL_INCLUDES = ['libs/sampling/packed_sample_row.h']

# Word in code (comments and strings apart), where it may stand, and what to use instead. TESTS: in all tests.
TESTS = 'TESTS'
BANNED_CODE = [
    (r'\bgetenv\s*\(', ['libs/base/config_sources.cc', 'libs/keys/process_keys.cc',  # the client library has no main
                        'tests/chaos/preload.cc', 'tests/e2e/no_memory_preload.cc'],  # nor have preloaded libraries
     'configuration is read in main (base/config.h) and passed down'),
    (r'\b(std::)?(exit|quick_exit)\s*\(', [], 'return from main, or throw Error'),
    (r'(?<![\w.>:])(std::)?system\s*\(|\bpopen\s*\(', [], 'never run a shell'),
    (r'\bnew\b', [], 'std::make_unique or a container; unique_ptr(new T) for private constructors'),
    (r'(?<!=)(?<!= )\bdelete\b', [], 'an owner with a destructor'),
    (r'\bcudaFree(Async|Host)?\b|\bcudaMalloc(Async|Host)?\b', ['libs/backend/cuda/cuda_memory.', TESTS],
     'cuda_memory.h'),
    (r'\bHAVE_CUDA\b', [], 'a stub file chosen by CMake'),
    (r'\busing namespace std\b', [], 'name what is used'),
    (r'\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|atoi|atol|atof)\s*\(', [], 'a bounded or checked function'),
    (r'\b(rand|srand)\s*\(', [], 'base/ids.h, sampling/random.h, or a seeded std::mt19937_64 in tests'),
    (r'\b(steady_clock|system_clock)::now\b', ['libs/base/clock.h', TESTS],
     'a Clock or an Instant that is passed in'),
    (r'\.detach\s*\(\s*\)', ['services/worker/rank.cc', 'libs/comm/nccl_communicator.cc',
                              'libs/transport/reachability.cc'],
     'join; only the watch that ends a rank, and calls of NCCL and of a name server that hang, outlive their scopes'),
]
# Where the word `cuda` may stand in C++ code; the device is nobody else's business.
CUDA_WORD_ALLOWED = ['kernels/', 'libs/backend/cuda/', 'libs/backend/cuda_factory.h', 'libs/backend/no_cuda.cc',
                     'libs/backend/backend_factory.cc', 'libs/comm/nccl', 'libs/comm/no_nccl.cc',
                     'libs/tensor/device.h',
                     'services/worker/',           # --device
                     'services/cli/doctor/',       # what a driver is good for
                     'services/cli/stack/stack_plan.cc',  # passes --device on
                     'services/cli/bench/bench_options.cc'  # the same
                     ]

# Words in string literals that one table owns, and the file of that table.
OWNED_STRINGS = [
    (r'fp16|bf16|fp32', ['libs/base/format_names.h', 'libs/quant/quant_format.cc', 'docs/examples/'],
     'base/format_names.h'),
    (r'int8|int8-mse|fp8|int4', ['libs/base/format_names.h', 'libs/quant/quant_format.cc',
                                 'libs/checkpoint/manifest/manifest.cc',  # in a sentence
                                 'services/cli/plot/plot_series.cc'],     # a key of published data
     'base/format_names.h'),
]

# In every text file, comments included: (pattern, why not).
BANNED_TEXT = [
    (r'\b(TO' r'DO|FIX' r'ME|HA' r'CK|XX' r'X)\b', 'do it, or file it where work is tracked'),
    (r'(?<![\w/])/wo' r'rk/', 'a path of one machine'),
    (r'(?i)\b(issue|ticket) #\d+', 'history belongs to commit messages'),
]

# In JavaScript, styles and markup of a page: (pattern, what to use instead).
BANNED_IN_PAGE = [
    (r'\b(inner|outer)HTML\b|\binsertAdjacentHTML\b|\bdocument\.write\b|\beval\(|\bnew Function\b',
     'elements and text nodes'),
    (r'\blocalStorage\b|\bdocument\.cookie\b', 'sessionStorage: a key ends with its tab'),
    (r'<script(?![^>]*\bsrc=)|<style\b|\sstyle="|\son[a-z]+="', 'files: the policy of the page allows nothing inline'),
    (r'(src|href)="(https?:)?//|@import|url\(', 'files of the page'),
]

# Pages whose paths, and stops of journeys, are compared with the tree.
PAGES_WITH_PATHS = ['docs/architecture.md', 'docs/extending.md']
# Pages whose tests, `Suite.Case`, are compared with the tree.
PAGES_WITH_TESTS = ['docs/reliability.md', 'docs/field_cases.md', 'docs/security.md']

BANNED_FILE_NAMES = {'utils', 'util', 'common', 'helpers', 'helper', 'core', 'misc', 'stuff'}

# Files that break a limit, with the reason: {path: (rule, why)}.
EXCEPTIONS = {
    'libs/base': ('folder-size', 'small subjects that everything uses, a pair of files each'),
    'libs/pyclient/src/optserve/_messages.py': ('file-length', 'made from docs/protocol.json (make_messages.py)'),
    'libs/tokenizer/unicode_classes.cc': ('file-length', 'a generated table (make_unicode_table.py)'),
}
