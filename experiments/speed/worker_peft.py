"""The other side: the same model in transformers, with a prompt of peft, as its users train it.

Batches are padded to their longest row. `compile` compiles encoder and decoder for all lengths at
once; `huge-pages` is eager with the setting that `prompt-tuning` makes by itself. For rank
classification the encoder runs once for all labels, and both for that and for generation the
examples are sorted by length, as on our side: more than a plain use of peft does.
"""

import numpy as np
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration
from transformers.optimization import Adafactor

from experiments.speed.cells import EVAL_ROWS, PROMPT, TARGETS, Cell
from experiments.speed.measuring import Job, measure, read_job, report
from prompt_tuning import huge_pages

SIZES = {
    "small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
    "base": {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12},
    "large": {"d_model": 1024, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    "xl": {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32},
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_model(cell: Cell, variant: str):
    """T5 1.1 with random weights and a prompt for the encoder alone."""
    config = T5Config(
        vocab_size=32128,
        d_kv=64,
        num_decoder_layers=SIZES[cell.size]["num_layers"],
        dropout_rate=cell.dropout,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        **SIZES[cell.size],
    )
    with torch.device(DEVICE):
        model = T5ForConditionalGeneration(config).to(getattr(torch, cell.dtype))
    prompt = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PROMPT, num_transformer_submodules=1
    )
    model = get_peft_model(model, prompt).to(DEVICE)
    if variant == "compile":
        model.base_model.encoder.compile(dynamic=True)
        model.base_model.decoder.compile(dynamic=True)
    return model


def padded(rows: np.ndarray, cell: Cell, filler: int = 0) -> torch.Tensor:
    """Rows of ids, cut to the longest unless the cell has a fixed width."""
    width = rows.shape[1] if cell.fixed else int((rows != 0).sum(axis=1).max())
    cut = rows[:, :width].astype(np.int64)
    return torch.from_numpy(np.where(cut == 0, filler, cut)).to(DEVICE)


def training_steps(model, tokens, job: Job) -> list:
    """Loss, gradient and update of a batch each."""
    model.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = Adafactor(
        trainable, lr=0.3, scale_parameter=False, relative_step=False, warmup_init=False
    )

    def step(inputs, targets):
        inputs = padded(inputs, job.cell)
        loss = model(
            input_ids=inputs,
            attention_mask=(inputs != 0).long(),
            labels=padded(targets, job.cell, -100),
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    pairs = list(zip(tokens["train_inputs"], tokens["train_targets"]))[: job.steps]
    return [lambda pair=pair: step(*pair) for pair in pairs]


def sorted_batches(tokens, cell: Cell) -> list[torch.Tensor]:
    """The dev examples in batches of rows of similar length."""
    rows = tokens["dev_inputs"]
    order = np.argsort((rows != 0).sum(axis=1), kind="stable")
    return [
        padded(rows[order[start : start + EVAL_ROWS]], cell)
        for start in range(0, len(order), EVAL_ROWS)
    ]


def rank_step(model, tokens, cell: Cell):
    """log p(label | input) of every label."""
    labels = torch.from_numpy(tokens["labels"].astype(np.int64)).to(DEVICE)
    t5, prompt = model.base_model, model.get_prompt

    def rank(inputs):
        rows = len(inputs)
        embedded = torch.cat([prompt(rows).to(t5.dtype), model.word_embeddings(inputs)], dim=1)
        mask = torch.cat([torch.ones(rows, PROMPT, device=DEVICE), inputs != 0], dim=1).long()
        encoded = t5.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        count = len(labels)
        logits = t5(
            encoder_outputs=(encoded.repeat_interleave(count, dim=0),),
            attention_mask=mask.repeat_interleave(count, dim=0),
            decoder_input_ids=torch.nn.functional.pad(labels, (1, -1)).repeat(rows, 1),
        ).logits
        logs = torch.log_softmax(logits.float(), dim=-1)
        picked = logs.gather(-1, labels.repeat(rows, 1)[..., None])[..., 0]
        return (picked * (labels != 0).repeat(rows, 1)).sum(-1).view(rows, count).argmax(1).tolist()

    return rank


def generation_step(model):
    """Greedy decoding of exactly `TARGETS` tokens."""

    def generate(inputs):
        mask = (inputs != 0).long()
        decoded = model.generate(
            input_ids=inputs, attention_mask=mask, do_sample=False, num_beams=1,
            max_new_tokens=TARGETS, min_new_tokens=TARGETS,
        )  # fmt: skip
        return decoded.tolist()

    return generate


def main() -> None:
    """Runs the job that the command line names."""
    job = read_job()
    if job.variant == "huge-pages":
        huge_pages.restart()
    torch.manual_seed(0)
    tokens = dict(np.load(job.tokens))
    model = make_model(job.cell, job.variant)
    if job.cell.kind == "training":
        steps = training_steps(model, tokens, job)
    else:
        model.eval()
        one = (
            generation_step(model)
            if job.cell.kind == "generation"
            else rank_step(model, tokens, job.cell)
        )
        made = sorted_batches(tokens, job.cell)

        @torch.inference_mode()
        def step():
            for inputs in made:
                one(inputs)

        steps = [step] * job.steps
    warm_up = None if job.variant == "compile" and job.cell.kind == "training" else 1
    result = measure(steps, job, warm_up)
    if DEVICE == "cpu":
        report(result, "cpu")
    else:
        report(result, torch.cuda.get_device_name(), torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    main()
