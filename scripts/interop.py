#!/usr/bin/env python3
"""Opens what preflow makes in the Python libraries of the field, and compares numbers.

Runs a small pipeline, then: its datasets in `datasets` and pandas; its models in transformers, whose
loss must be that which the stage reported; a shard, a bf16 copy and a reward model; one step of
TRL's DPOTrainer on an exported model and its labels; adapters in peft. A model of every architecture goes in and out
again, and transformers must find the logits that it found before. The libraries are installed with pip into
target/interop, unless INTEROP_PYTHON names an interpreter that has them.
usage: interop.py [path of preflow]
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ["torch", "transformers", "datasets", "pandas", "trl", "peft"]
PIPELINE = """
preflow: 1
name: interop
sources:
  published: {{ path: {root}/stages/tests/fixtures/models/qwen2, as: huggingface }}
  chats: {{ path: {root}/datasets/import/demos.jsonl, as: messages }}
  corpus: {{ path: {root}/datasets/workshop/corpus.parquet, as: text }}
  demos: {{ path: {root}/datasets/workshop/demos.jsonl, as: prompt_completion }}
  prompts: {{ path: {root}/datasets/workshop/prompts.jsonl, as: prompt }}
stages:
  imported: {{ kind: import_model, source: published }}
  tuned: {{ kind: sft, model: imported, demos: chats, lora: {{ rank: 4 }}, train: {{ epochs: 4, lr: 1.0e-2 }} }}
  tuned_out: {{ kind: export, model: tuned }}
  kept: {{ kind: sft, model: imported, demos: chats, lora: {{ rank: 4, keep: true }}, train: {{ epochs: 4, lr: 1.0e-2 }} }}
  kept_out: {{ kind: export, model: kept, form: peft }}
  sharded_out: {{ kind: export, model: tuned, max_shard_size: 8000 }}
  half_out: {{ kind: export, model: tuned, dtype: bfloat16 }}
  text: {{ kind: prepare, data: corpus, as: text, split: {{ part: test, test_fraction: 20% }} }}
  tokenizer: {{ kind: tokenizer, text: text, vocab_size: 400 }}
  base:
    kind: pretrain
    text: text
    tokenizer: tokenizer
    model: {{ layers: 2, hidden: 64, heads: 4, context: 64 }}
    train: {{ tokens: 60k, batch_tokens: 768, lr: 4.0e-3 }}
  demonstrations: {{ kind: prepare, data: demos, as: prompt_completion, dedupe: true }}
  sft: {{ kind: sft, model: base, demos: demonstrations, train: {{ epochs: 1, lr: 1.0e-3, eval_fraction: 0% }} }}
  pairs: {{ kind: sample_pairs, policy: sft, prompts: prompts, pairs: 120, max_tokens: 20 }}
  labels:
    kind: collect_labels
    pairs: pairs
    labeler: {{ simulated: {{ rules: !include gold.yaml }} }}
  reward: {{ kind: train_reward, base: sft, labels: labels, epochs: 1 }}
  sft_out: {{ kind: export, model: sft }}
  reward_out: {{ kind: export, model: reward }}
"""


def main():
    if os.environ.get("PREFLOW_INTEROP") != "inside":
        env = dict(os.environ, PREFLOW_INTEROP="inside", TQDM_DISABLE="1", HF_HUB_OFFLINE="1",
                   TRANSFORMERS_VERBOSITY="error")
        sys.exit(subprocess.run([interpreter(), __file__, *sys.argv[1:]], env=env).returncode)
    preflow = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/preflow")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        pipeline = scratch / "interop.yaml"
        # What is included lies in the workspace.
        shutil.copy(ROOT / "datasets/workshop/gold.yaml", scratch)
        pipeline.write_text(PIPELINE.format(root=os.path.relpath(ROOT, scratch)))
        subprocess.run([preflow.resolve(), "run", "interop.yaml"], cwd=scratch, check=True)
        views = scratch / "cache/views/interop"
        datasets_open(views)
        conversations_cost_the_same(views)
        completions_cost_the_same(views)
        copies_agree(views)
        adapters_agree(views)
        rewards_agree(views)
        dpo_takes_a_step(views, scratch)
        architectures_agree(preflow, scratch)
    print("interop: everything opens and agrees")


def architectures_agree(preflow, scratch):
    """Small models of all architectures, imported and exported again."""
    import torch
    models = ROOT / "stages/tests/fixtures/models"
    expected = json.loads((models / "bare/expected.json").read_text())
    names = [name for name in expected if "greedy" in expected[name]]
    lines = ["preflow: 1", "name: architectures", "sources:"]
    for name in names:
        shutil.copytree(models / "bare" / name, scratch / "models" / name)
        for file in ["tokenizer.json", "tokenizer_config.json"]:
            shutil.copy(models / "qwen2" / file, scratch / "models" / name / file)
        lines.append(f"  {name}: {{ path: models/{name}, as: huggingface }}")
    lines.append("stages:")
    for name in names:
        lines.append(f"  in_{name}: {{ kind: import_model, source: {name}, context: 64 }}")
        lines.append(f"  out_{name}: {{ kind: export, model: in_{name} }}")
    (scratch / "architectures.yaml").write_text("\n".join(lines) + "\n")
    subprocess.run([preflow.resolve(), "run", "architectures.yaml"], cwd=scratch, check=True)
    for name in names:
        model, _ = opened(scratch / f"cache/views/architectures/out_{name}/folder")
        for row, known in zip(expected[name]["rows"], expected[name]["logits"]):
            with torch.no_grad():
                found = model(input_ids=torch.tensor([row])).logits[0, -2:].reshape(-1)
            apart = float((found - torch.tensor(known)).abs().max())
            assert apart < 1e-4, (name, apart)
    print(f"interop: {len(names)} architectures go in and out with their logits")


def interpreter():
    """A Python that has the libraries."""
    if given := os.environ.get("INTEROP_PYTHON"):
        return given
    folder = ROOT / "target/interop"
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return str(python)


def near(what, ours, theirs, tolerance):
    print(f"interop: {what}: {ours:.6f} here, {theirs:.6f} there")
    assert abs(ours - theirs) <= tolerance, what


def reported(views, stage, name):
    """The last figure of that name that a stage reported."""
    import pandas
    frame = pandas.read_parquet(views / stage / "metrics.parquet")
    return float(frame[frame.name == name].value.iloc[-1])


def opened(folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model.float().eval(), AutoTokenizer.from_pretrained(folder)


def datasets_open(views):
    import datasets
    import pandas
    for path in sorted(views.glob("*/*.parquet")):
        rows = len(pandas.read_parquet(path))
        if rows == 0:  # `datasets` opens no table without rows
            continue
        table = datasets.Dataset.from_parquet(str(path), cache_dir=str(views / "hf"))
        assert table.num_rows == rows, path
        print(f"interop: {path.parent.name}/{path.name}: {rows} rows, {table.column_names}")


def loss(model, rows):
    """Mean over all learned tokens of rows of (ids, mask)."""
    import torch
    total, count = 0.0, 0
    with torch.no_grad():
        for ids, mask in rows:
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
            learned = torch.tensor(mask[1:]).bool()
            total, count = total + float(nll[learned].sum()), count + int(learned.sum())
    return total / count


def conversations_cost_the_same(views):
    """An imported model, trained on conversations: weights, template and mask."""
    model, tokenizer = opened(views / "tuned_out/folder")
    rows = []
    for line in (ROOT / "datasets/import/demos.jsonl").read_text().splitlines():
        encoded = tokenizer.apply_chat_template(
            json.loads(line)["messages"], tokenize=True, return_dict=True,
            return_assistant_tokens_mask=True)
        rows.append((encoded["input_ids"], encoded["assistant_masks"]))
    near("loss on conversations", reported(views, "tuned", "train/final_loss"), loss(model, rows), 1e-4)


def completions_cost_the_same(views):
    """A model with a tokenizer of our own, through the template that is exported with it."""
    import pandas
    model, tokenizer = opened(views / "sft_out/folder")
    rows = []
    for row in pandas.read_parquet(views / "demonstrations/data.parquet").itertuples():
        chat = [{"role": "user", "content": row.prompt},
                {"role": "assistant", "content": row.completion}]
        encoded = tokenizer.apply_chat_template(
            chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        rows.append((encoded["input_ids"], encoded["assistant_masks"]))
    near("loss on completions", reported(views, "sft", "train/final_loss"), loss(model, rows), 1e-3)


def copies_agree(views):
    import torch
    whole, _ = opened(views / "tuned_out/folder")
    sharded, _ = opened(views / "sharded_out/folder")
    half, _ = opened(views / "half_out/folder")
    assert len(list((views / "sharded_out/folder").glob("*.safetensors"))) > 1
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, sharded.state_dict()[name]), name
        assert torch.equal(tensor.bfloat16().float(), half.state_dict()[name]), name
    print("interop: shards and bf16 hold the same weights")


def adapters_agree(views):
    """Adapters that were kept apart, in peft beside the base: the model that has them merged in."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    base = AutoModelForCausalLM.from_pretrained(ROOT / "stages/tests/fixtures/models/qwen2").float()
    merged = PeftModel.from_pretrained(base, views / "kept_out/folder").merge_and_unload()
    whole, _ = opened(views / "tuned_out/folder")
    apart = max(float((tensor - merged.state_dict()[name]).abs().max())
                for name, tensor in whole.state_dict().items())
    near("weights with adapters of peft merged in, farthest apart", apart, 0.0, 1e-5)


def rewards_agree(views):
    """A reward model opens as a classifier; its scores order the pairs as the stage said."""
    import pandas
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    folder = views / "reward_out/folder"
    model = AutoModelForSequenceClassification.from_pretrained(folder).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    labels = pandas.read_parquet(views / "labels/labels.parquet")
    right = 0
    decided = labels[~labels.tie]
    with torch.no_grad():
        for row in decided.itertuples():
            scores = []
            for answer in (row.chosen, row.rejected):
                chat = [{"role": "user", "content": row.prompt},
                        {"role": "assistant", "content": answer}]
                encoded = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
                scores.append(float(model(**encoded).logits[0, 0]))
            right += scores[0] > scores[1]
    print(f"interop: the reward model prefers {right} of {len(decided)} chosen answers")
    assert right > 0.5 * len(decided)


def dpo_takes_a_step(views, scratch):
    import datasets
    import pandas
    from trl import DPOConfig, DPOTrainer
    model, tokenizer = opened(views / "sft_out/folder")
    labels = pandas.read_parquet(views / "labels/labels.parquet")
    rows = labels[~labels.tie][["prompt", "chosen", "rejected"]]
    turns = lambda role: lambda text: [{"role": role, "content": text}]
    rows = pandas.DataFrame({
        "prompt": rows.prompt.map(turns("user")),
        "chosen": rows.chosen.map(turns("assistant")),
        "rejected": rows.rejected.map(turns("assistant")),
    })
    settings = DPOConfig(output_dir=str(scratch / "dpo"), max_steps=1, report_to=[], use_cpu=True,
                         bf16=False, per_device_train_batch_size=4, logging_steps=1)
    trainer = DPOTrainer(model=model, args=settings, processing_class=tokenizer,
                         train_dataset=datasets.Dataset.from_pandas(rows, preserve_index=False))
    found = trainer.train().training_loss
    # The policy is the reference at the first step.
    near("loss of the first DPO step", 0.693147, found, 1e-3)


if __name__ == "__main__":
    main()
