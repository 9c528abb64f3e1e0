"""Makes the pocket models and PocketGLUE known to the core, which does not know of them.

What only runs a model needs `register_models`, which is quick. What reads a task needs
`register_tasks`, which imports TensorFlow.
"""

from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.data import vocabularies
from prompt_tuning.inference import weights
from prompt_tuning.pocket import models, repeats, vocabulary


def register_models() -> None:
    """Registers the names of the pocket models, their vocabulary and their initial parameters."""
    vocabularies.register_family(vocabulary.FAMILY)
    checkpoint.register_names(
        "pocket", is_name=models.is_name, find=models.find, fingerprint=models.fingerprint
    )
    weights.register_random(repeats.RANDOM_REPEATS, repeats.start_from_repeats)


def register_tasks() -> None:
    """Registers PocketGLUE and the two pretraining tasks; a second call changes nothing."""
    from prompt_tuning.data import tasks
    from prompt_tuning.pocket import corpus_tasks, glue_tasks

    tasks.register_maker("pocket_glue", glue_tasks.make_named)
    glue_tasks.register()
    corpus_tasks.register()
