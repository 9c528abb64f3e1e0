"""How a T5 is computed. None of these choices changes what it computes, other than by rounding.

layers     unroll      each layer is compiled by itself: the fastest step
           scan        one layer is compiled and looped over: quick to compile, and what `remat`
                       needs to save memory on a CPU
remat      none        all that the backward pass needs is kept
           attention   attention weights are computed again in the backward pass
           layer       every layer is computed again: its input alone is kept
attention  plain       all scores at once
           blockwise   a block of queries at a time, computed again in the backward pass
           cudnn       the fused kernel of NVIDIA GPUs; bfloat16, no attention dropout
"""

import dataclasses
import difflib

from prompt_tuning.model.sizes import T5Config

LAYERS = ("unroll", "scan")
REMAT = ("none", "attention", "layer")
ATTENTION = ("plain", "blockwise", "cudnn")
AUTO = "auto"
CHOICES = {"layers": LAYERS, "remat": REMAT, "attention": ATTENTION}


@dataclasses.dataclass(frozen=True)
class Compute:
    """See the module's docstring; part of the model, so each one compiles its own program."""

    layers: str = "unroll"
    remat: str = "none"
    attention: str = "plain"

    def __post_init__(self):
        for name, known in CHOICES.items():
            check(name, getattr(self, name), known)


def check(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuses an unknown choice.

    Raises:
      ValueError: lists the known ones.
    """
    if value not in known:
        guess = difflib.get_close_matches(str(value), known, n=1)
        hint = f", did you mean {guess[0]!r}?" if guess else "."
        raise ValueError(f"Unknown {name} {value!r}{hint} Known: {', '.join(known)}.")


def choose(
    config: T5Config,
    backend: str,
    *,
    layers: str = AUTO,
    remat: str = AUTO,
    attention: str = AUTO,
) -> Compute:
    """Fills in what is 'auto'.

    Up to Base, layers are unrolled and everything is kept. Large models are scanned: unrolled ones
    take minutes to compile. Those of 2,048 and wider (XL, XXL) and all scanned ones on a CPU,
    whose memory is small, compute layers again. Attention is plain: on TPUs it suits T5's
    position bias (see experiments/speed), and cuDNN's has no attention dropout.

    Args:
      config: the model.
      backend: 'cpu', 'gpu' or 'tpu'.
      layers, remat, attention: a choice, or 'auto'.

    Raises:
      ValueError: a choice is unknown; cuDNN is asked for where it cannot run.

    >>> config = T5Config(name='doc', vocab_size=16, emb_dim=8, num_heads=2, head_dim=4,
    ...                   num_encoder_layers=1, num_decoder_layers=1, mlp_dim=16)
    >>> choose(config, 'cpu')
    Compute(layers='unroll', remat='none', attention='plain')
    """
    for name, value in (("layers", layers), ("remat", remat), ("attention", attention)):
        check(name, value, (AUTO, *CHOICES[name]))
    if layers == AUTO:
        deep = max(config.num_encoder_layers, config.num_decoder_layers) >= 24
        layers = "scan" if deep else "unroll"
    if remat == AUTO:
        large = layers == "scan" and (backend == "cpu" or config.emb_dim >= 2048)
        remat = "layer" if large else "none"
    if attention == AUTO:
        attention = "plain"
    if attention == "cudnn":
        _check_cudnn(config, backend)
    return Compute(layers, remat, attention)


def compiler_options(compute: Compute, backend: str) -> dict[str, str] | None:
    """What to tell XLA about a step.

    By default a CPU converts several int8 matrices of a layer at once. Where layers are computed
    again to save memory, it takes them one after the other.
    """
    if backend == "cpu" and compute.remat == "layer":
        return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return None


def _check_cudnn(config: T5Config, backend: str) -> None:
    wrong = []
    if backend != "gpu":
        wrong.append(f"the backend is {backend!r} and must be 'gpu'")
    if config.dtype != "bfloat16":
        wrong.append(f"T5Config.dtype is {config.dtype!r} and must be 'bfloat16'")
    if config.dropout_rate:
        wrong.append(f"DROPOUT_RATE is {config.dropout_rate} and must be 0")
    if wrong:
        raise ValueError(f"attention='cudnn' cannot be used: {'; '.join(wrong)}.")
