"""What is measured: the cells of the grid, and who is measured in each.

A *cell* is one piece of work, such as training on RTE with T5 1.1 Small in float32. A *side* is a
program that does it. Every side of a cell runs in a process of its own, one after the other, and
again in every round: ours, peft, ours, peft.
"""

import dataclasses
import itertools

TASKS = {
    "rte": "super_glue/rte:1.0.2",
    "boolq": "super_glue/boolq:1.0.2",
    "sst2": "glue/sst2:2.0.0",
    "multirc": "super_glue/multirc:1.0.2",
}
"""The tasks, by their parts in gin/tasks, and their data."""

PROMPT = 100  # vectors
TARGETS = 8  # tokens
TRAIN_ROWS = 16  # of a batch
EVAL_ROWS = 32
EVAL_EXAMPLES = 128
EVAL_KINDS = ("rank", "generation")
GPU_SIZES = ("small", "base", "large", "xl")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One piece of work.

    Attributes:
      kind: 'training', 'rank' (rank classification), 'generation' (greedy decoding) or 'matmul'.
      size: of T5 1.1, one of `GPU_SIZES`.
      dtype: of the frozen parameters and the computation, 'float32' or 'bfloat16'.
      task: whose text is read.
      dropout: the rate.
      inputs: tokens of an input at most.
      fixed: every batch is padded to `inputs`.
      against: 'peft', 't5x' or 'peak', the machine's matmul peak.
    """

    kind: str
    size: str
    dtype: str
    task: str
    dropout: float = 0.0
    inputs: int = 512
    fixed: bool = False
    against: str = "peft"

    @property
    def name(self) -> str:
        """Names it in logs and rows."""
        width = f"{'fixed' if self.fixed else 'to'}{self.inputs}"
        parts = (self.against, self.kind, self.size, self.dtype, self.task, width)
        return "/".join([*parts, f"dropout{self.dropout:g}"])

    @property
    def examples_per_step(self) -> int:
        """A step of training is a batch; one of the others is all examples."""
        return TRAIN_ROWS if self.kind == "training" else EVAL_EXAMPLES


@dataclasses.dataclass(frozen=True)
class Side:
    """One program.

    Attributes:
      name: 'ours', 'peft', 't5x' or 'matmul', products alone.
      variant: how it is run.
      worker: its module in this folder.
      python: whose environment it runs in, 'ours', 'newest' (ours, with the newest versions) or
        'peft'.
    """

    name: str
    variant: str
    worker: str
    python: str = "ours"


OURS = Side("ours", "default", "worker_ours")
SMALL_PAGES = Side("ours", "small-pages", "worker_ours")
NEWEST = Side("ours", "newest", "worker_ours", "newest")
CUDNN = Side("ours", "cudnn", "worker_ours")
KEPT = Side("ours", "no-remat", "worker_ours")
EAGER = Side("peft", "eager", "worker_peft", "peft")
COMPILED = Side("peft", "compile", "worker_peft", "peft")
HUGE_PAGES = Side("peft", "huge-pages", "worker_peft", "peft")
T5X_PROMPT = Side("t5x", "network", "worker_t5x")
T5X_TRAINER = Side("t5x", "trainer", "worker_t5x")
MATMUL = Side("matmul", "float32", "worker_matmul")
PRODUCTS = (
    MATMUL,
    Side("matmul", "bfloat16", "worker_matmul"),
    Side("matmul", "float32/newest", "worker_matmul", "newest"),
    Side("matmul", "bfloat16/newest", "worker_matmul", "newest"),
    Side("matmul", "float32/torch", "worker_matmul_torch", "peft"),
    Side("matmul", "bfloat16/torch", "worker_matmul_torch", "peft"),
)

SIDES = {
    "peft": (OURS, EAGER, NEWEST, COMPILED, HUGE_PAGES, SMALL_PAGES),
    "t5x": (OURS, T5X_PROMPT, NEWEST, T5X_TRAINER),
    "peak": (OURS, NEWEST, *PRODUCTS),
}


GPU_SIDES = (OURS, EAGER, CUDNN, KEPT, COMPILED)


def sides(cell: Cell, *, gpu: bool) -> list[Side]:
    """Who is measured in a cell.

    cuDNN's attention has no dropout, and up to Large a GPU computes nothing again.
    """
    if not gpu:
        return [*SIDES[cell.against]]
    left_out = [CUDNN] if cell.dropout else []
    if cell.size != "xl" or cell.kind != "training":
        left_out.append(KEPT)
    return [side for side in GPU_SIDES if side not in left_out]


def gpu() -> list[Cell]:
    """The cells of a GPU."""
    kinds = [("training", 0.1), ("training", 0.0), *((kind, 0.0) for kind in EVAL_KINDS)]
    return [
        Cell(kind, size, "bfloat16", "rte", dropout)
        for size, (kind, dropout) in itertools.product(GPU_SIZES, kinds)
    ]


def grid() -> list[Cell]:
    """All cells of a CPU, those of the targets first."""
    sizes, dtypes, tasks = ("small", "base"), ("float32", "bfloat16"), ("rte", "boolq", "sst2")
    training = [
        Cell("training", size, dtype, task, dropout)
        for size, dropout, dtype, task in itertools.product(sizes, (0.1, 0.0), dtypes, tasks)
    ]
    evaluation = [
        Cell(kind, size, dtype, task)
        for size, kind, dtype, task in itertools.product(sizes, EVAL_KINDS, dtypes, tasks)
    ]
    fixed = [
        Cell("training", "small", dtype, "rte", dropout, fixed=True)
        for dropout, dtype in itertools.product((0.1, 0.0), dtypes)
    ]
    small = [cell for cell in training + evaluation if cell.size == "small"]
    base = [cell for cell in training + evaluation if cell.size == "base"]
    return [*small, *fixed, *against_t5x(), *peak(), *base]


def against_t5x() -> list[Cell]:
    """Inputs of 128 tokens, and RTE, which T5X pads to 512."""
    full = Cell("training", "small", "float32", "multirc", inputs=128, against="t5x")
    padded = Cell("training", "small", "float32", "rte", against="t5x")
    return [dataclasses.replace(c, dropout=rate) for c in (full, padded) for rate in (0.1, 0.0)]


def peak() -> list[Cell]:
    """The step whose share of the matmul peak is reported."""
    return [dataclasses.replace(cell, against="peak") for cell in against_t5x()[:2]]
