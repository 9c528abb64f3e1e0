"""The bridge to T5X: its own models, trainer, checkpoints and evaluator, with our soft prompt.

    network.py           T5X's T5, unmodified, with a prompt joined to the embedded input
    start.py             the initial prompt: from an initialiser or a file
    restoring.py         nothing but the prompt may be new when a frozen model is restored
    optimizer.py         Adafactor on the prompt, nothing on the rest
    saving.py            prompt files at every save
    task_vocabulary.py   our seqio tasks and their vocabularies, for T5X
    __main__.py          `python -m prompt_tuning.bridge t5x.train ...`

The gin parts are in gin/t5x. Everything else is T5X's. T5X is first imported here, after a line
that it needs with this jax.
"""

import jax
from jax.experimental import pjit

T5X_COMMIT = "cc342d4"
AIRIO_COMMIT = "69897df"
"""The commits of google-research/t5x and of google/airio that the tests ran with."""

# T5X's optimizers import jestimator, which still imports PartitionSpec from here. jax has moved
# it to jax.sharding; without this line no module of T5X can be imported.
pjit.PartitionSpec = jax.sharding.PartitionSpec

try:
    import t5x.utils  # noqa: F401  (so that a missing package is reported here)
except ImportError as error:
    raise ImportError(
        f"T5X cannot be imported ({error}); install the commit that was tested with `pip install "
        f"--no-deps git+https://github.com/google-research/t5x@{T5X_COMMIT} "
        f"git+https://github.com/google/airio@{AIRIO_COMMIT}` and then `pip install aqtp "
        "cached_property chex clu fiddle grain jaxtyping jestimator tensorboard`."
    ) from error

from prompt_tuning import config  # noqa: E402

config.configurables()  # makes our names known to gin and our tasks to seqio
