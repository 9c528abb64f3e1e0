"""The commands on files: `prompt-tuning prompt ...` and `prompt-tuning checkpoint ...`."""

import argparse

EXIT_DIFFERENT = 1  # as of diff(1)


def count(text: str) -> int:
    """Reads a whole number, 1 or more; argparse refuses another with the option's name."""
    return _at_least(text, 1)


def step(text: str) -> int:
    """Reads a whole number, 0 or more."""
    return _at_least(text, 0)


def step_range(text: str) -> tuple[int, int]:
    """Reads FIRST:LAST, or one number for both.

    >>> step_range("10:13")
    (10, 13)
    """
    first, _, last = text.partition(":")
    return count(first), count(last or first)


def _at_least(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more; got {text!r}")
    return int(text)


def add_prompt_commands(commands) -> None:
    """Adds `prompt show | explain | export | import`."""
    prompt = commands.add_parser(
        "prompt", help="show or explain a prompt file, or convert it to or from peft"
    )
    actions = prompt.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print shape, norm, range, origin and nearest pieces")
    show.add_argument("path")
    show.add_argument("--checkpoint", help="of the frozen model, for the nearest vocabulary pieces")
    _add_vocabulary_options(show)
    show.set_defaults(command=_prompt_show)
    explain = actions.add_parser(
        "explain", help="compare it with the vocabulary and with random prompts"
    )
    explain.add_argument("path")
    explain.add_argument("--checkpoint", required=True, help="of the frozen model")
    _add_vocabulary_options(explain)
    explain.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="the class labels that positions 0, 1, ... started at",
    )
    explain.add_argument("--seed", type=step, default=0, help="of the random prompts")
    explain.add_argument("--format", choices=("text", "json"), default="text")
    explain.set_defaults(command=_prompt_explain)
    export = actions.add_parser("export", help="prompt file -> peft adapter")
    export.add_argument("path", help="the prompt file")
    export.add_argument("folder", help="new folder; PeftModel.from_pretrained loads it")
    export.add_argument("--format", required=True, choices=("peft",))
    export.add_argument(
        "--base_model", metavar="NAME", help="name of its Hugging Face model, for peft"
    )
    export.set_defaults(command=_prompt_export)
    take = actions.add_parser("import", help="peft adapter -> prompt file")
    take.add_argument("folder", help="with adapter_config.json and adapter_model.safetensors")
    take.add_argument("path", help="NAME; NAME.safetensors and NAME.npy are written")
    take.set_defaults(command=_prompt_import)


def _add_vocabulary_options(action) -> None:
    action.add_argument(
        "--vocabulary",
        choices=("t5", "mt5", "byt5", "pocket"),
        help="default: pocket for a pocket model, t5 otherwise",
    )
    action.add_argument("--vocabulary_file", help="sentencepiece model on disk")
    action.add_argument("--count", type=count, default=5, help="pieces per position, by cosine")


def add_checkpoint_commands(commands) -> None:
    """Adds `checkpoint show | recreate | convert | diff`."""
    parser = commands.add_parser("checkpoint", help="show, convert or compare checkpoints")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="list the parameters by T5X name")
    show.add_argument("path")
    show.set_defaults(command=_checkpoint_show)
    recreate = actions.add_parser("recreate", help="frozen model + prompt -> one T5X checkpoint")
    recreate.add_argument("--checkpoint", required=True, help="the frozen model")
    recreate.add_argument("--prompt", required=True, help="the prompt file")
    recreate.add_argument("--output", required=True, help="folder to write checkpoint_STEP to")
    recreate.add_argument("--step", type=step, default=0, help="number in the checkpoint's name")
    recreate.set_defaults(command=_checkpoint_recreate)
    convert = actions.add_parser("convert", help="T5X, T5X (Orbax), Hugging Face: any into any")
    convert.add_argument("source", help="a path, gs://..., hf://NAME@REVISION or pocket_s")
    convert.add_argument("target", help="new folder, or the folder to write checkpoint_STEP to")
    convert.add_argument("--format", required=True, choices=("t5x", "orbax", "hf"))
    convert.add_argument(
        "--model", help="for hf: t5_1_1_base or a gin file; default: found by its shapes"
    )
    convert.add_argument("--step", type=step, help="for t5x and orbax; default: the source's, or 0")
    convert.add_argument(
        "--drop_prompt", action="store_true", help="leave out the prompt that it holds"
    )
    convert.set_defaults(command=_checkpoint_convert)
    diff = actions.add_parser("diff", help="which parameters differ; exits with 1 if any does")
    diff.add_argument("a")
    diff.add_argument("b")
    diff.set_defaults(command=_checkpoint_diff)


def _prompt_show(options) -> None:
    from prompt_tuning.prompts import show

    print(show.summary(options.path))
    if options.checkpoint is not None:
        _print_nearest_pieces(options)


def _print_nearest_pieces(options) -> None:
    from prompt_tuning.prompts import files, show

    prompt = files.read_prompt(options.path).prompt
    vocabulary, table = _vocabulary_and_table(options)
    pieces = vocabulary.pieces()
    found = show.nearest(prompt, table, options.count)
    for position, row in enumerate(found):
        listed = "  ".join(f"{pieces[token]} {cosine:.3f}" for token, cosine in row)
        print(f"{position:4}  {listed}")


def _vocabulary_and_table(options):
    """The vocabulary of the frozen model, and the embedding of each of its pieces."""
    from prompt_tuning.checkpoints import checkpoint
    from prompt_tuning.data import vocabularies
    from prompt_tuning.model.transformer import EMBEDDING_PATH

    family = options.vocabulary or checkpoint.family_of_name(options.checkpoint) or "t5"
    vocabulary = vocabularies.get(family, options.vocabulary_file)
    table = checkpoint.read_variable(options.checkpoint, EMBEDDING_PATH)
    return vocabulary, table[: len(vocabulary.pieces())]


def _prompt_explain(options) -> None:
    import json

    from prompt_tuning.data import labels
    from prompt_tuning.prompts import explain, files

    prompt = files.read_prompt(options.path).prompt
    vocabulary, table = _vocabulary_and_table(options)
    tokenize = labels.tokenizer(vocabulary)
    found = explain.explain_prompt(
        prompt,
        table,
        vocabulary.pieces(),
        labels=options.labels,
        label_ids=[tokenize(label) for label in options.labels],
        count=options.count,
        seed=options.seed,
    )
    if options.format == "json":
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        print(found.as_text())


def _prompt_export(options) -> None:
    from prompt_tuning.prompts import files, peft

    prompt = files.read_prompt(options.path)
    folder = peft.export(prompt, options.folder, base_model=options.base_model)
    print(f"written to {folder}")


def _prompt_import(options) -> None:
    from prompt_tuning.prompts import files, peft

    found = peft.read(options.folder)
    files.check_free(options.path)
    for path in files.save(options.path, found.prompt, found.metadata):
        print(f"written to {path}")


def _checkpoint_show(options) -> None:
    from prompt_tuning.checkpoints import checkpoint

    rows = checkpoint.show(options.path)
    width = max(len(row.path) for row in rows)
    for row in rows:
        print(f"{row.path:{width}}  {row.dtype:9} {str(row.shape):16} {row.count:>14,}")
    print(f"{len(rows)} parameters, {sum(row.count for row in rows):,} numbers")


def _checkpoint_recreate(options) -> None:
    from prompt_tuning.checkpoints import checkpoint
    from prompt_tuning.prompts import files

    prompt = files.read_prompt(options.prompt).prompt
    print(checkpoint.recreate(options.checkpoint, prompt, options.output, options.step))


def _checkpoint_convert(options) -> None:
    from prompt_tuning.checkpoints import convert

    if options.format != "hf" and options.model is not None:
        raise ValueError("--model is what a config.json describes; only --format hf has one.")
    if options.format == "hf" and options.step is not None:
        raise ValueError("--step is for t5x and orbax; a Hugging Face folder has no step.")
    models = {}
    if options.format == "hf":
        from prompt_tuning import config

        models["model"] = config.read_model(options.model) if options.model else None
        models["known_models"] = map(config.read_model, config.model_names())
    written = convert.convert(
        options.source,
        options.target,
        options.format,
        **models,
        step=options.step,
        drop_prompt=options.drop_prompt,
    )
    print(f"written to {written}")


def _checkpoint_diff(options) -> int:
    from prompt_tuning.checkpoints import convert

    found = convert.compare(options.a, options.b)
    for path in found.only_in_a:
        print(f"only in A  {path}")
    for path in found.only_in_b:
        print(f"only in B  {path}")
    for path, (a, b) in found.shape.items():
        print(f"shape      {path}  {list(a)} in A, {list(b)} in B")
    for path, largest in found.value.items():
        print(f"value      {path}  by {largest:.3g} at most")
    print(found.summary)
    return EXIT_DIFFERENT if found.different else 0
