"""One measurement of a peer, in a process of its own; `peers.py` calls it.

usage: peer.py MODEL BF16 WHAT [DATA UPDATES NEW GROUP | LAYERS WIDTH HEADS INTERMEDIATE VOCABULARY]
Prints RESULT and JSON: seconds, and `work` where it is not what preflow does.
"""

import json
import os
import sys
import tempfile
import time
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch
from torch.nn import functional

FOLDER, BF16, WHAT = sys.argv[1], sys.argv[2] == "1", sys.argv[3]
MORE = sys.argv[4:]


def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER)


def rows():
    return [json.loads(line) for line in open(MORE[0])]


def settings():
    return dict(
        output_dir=tempfile.mkdtemp(), report_to=[], use_cpu=True, save_strategy="no", logging_steps=10**6, bf16=BF16,
        disable_tqdm=True, gradient_checkpointing=False, learning_rate=1e-4,
    )


def timed(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def make_model(layers, width, heads, intermediate, vocabulary):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = special + ["w%d" % i for i in range(vocabulary - len(special))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(zip(["pad_token", "bos_token", "eos_token", "unk_token"], special))
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(FOLDER)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=256, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(FOLDER)
    return {"seconds": 0}


def matmul():
    import transformers
    import trl

    def rate(kind):
        a, b = torch.randn(4096, 256, dtype=kind), torch.randn(256, 768, dtype=kind)
        for _ in range(20):
            a @ b
        return 100 * 2 * 4096 * 256 * 768 / timed(lambda: [a @ b for _ in range(100)]) / 1e9

    versions = f"TRL {trl.__version__}, transformers {transformers.__version__}, PyTorch {torch.__version__}"
    return {"seconds": 0, "gflops": rate(torch.float32), "bf16": rate(torch.bfloat16), "versions": versions}


def sft(packed):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = [{"prompt": row["prompt"], "completion": " " + row["completion"]} for row in rows()]
    packing = dict(packing=True, packing_strategy="bfd") if packed else {}
    arguments = SFTConfig(
        per_device_train_batch_size=32, num_train_epochs=1, max_length=128, **packing, **settings()
    )
    trainer = SFTTrainer(
        model=model(), args=arguments, processing_class=tokenizer(), train_dataset=Dataset.from_list(data)
    )
    return {"seconds": timed(trainer.train)}


def pairs():
    from datasets import Dataset

    # As many as preflow trains on.
    all_of = rows()
    all_of = all_of[: round(len(all_of) * 0.9)]
    given = [{**row, "chosen": " " + row["chosen"], "rejected": " " + row["rejected"]} for row in all_of]
    return Dataset.from_list(given), len(all_of)


def reward():
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    data, work = pairs()
    tokens = tokenizer()
    scorer = AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=1, dtype=torch.float32)
    scorer.config.pad_token_id = tokens.pad_token_id
    arguments = RewardConfig(per_device_train_batch_size=32, num_train_epochs=1, max_length=128, **settings())
    trainer = RewardTrainer(model=scorer, args=arguments, processing_class=tokens, train_dataset=data)
    return {"seconds": timed(trainer.train), "work": work}


def dpo():
    from trl import DPOConfig, DPOTrainer

    data, work = pairs()
    arguments = DPOConfig(per_device_train_batch_size=32, num_train_epochs=1, max_length=128, **settings())
    trainer = DPOTrainer(
        model=model(), ref_model=model(), args=arguments, processing_class=tokenizer(), train_dataset=data
    )
    return {"seconds": timed(trainer.train), "work": work}


def sample(batch):
    new, policy, tokens = int(MORE[2]), model().eval(), tokenizer()
    policy = policy.bfloat16() if BF16 else policy
    prompts, seconds = [row["prompt"] for row in rows()], 0.0
    drawing = dict(do_sample=True, top_k=0, top_p=1.0, min_new_tokens=new, max_new_tokens=new)
    with torch.no_grad():
        for i in range(0, len(prompts), batch):
            given = tokens(prompts[i : i + batch], return_tensors="pt", padding=True, padding_side="left")
            given.pop("token_type_ids", None)
            seconds += timed(lambda: policy.generate(**given, **drawing))
    return {"seconds": seconds, "work": len(prompts) * new}


def grpo():
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    updates, new, group = (int(word) for word in MORE[1:4])
    data = Dataset.from_list([{"prompt": row["prompt"]} for row in rows()])
    arguments = GRPOConfig(
        per_device_train_batch_size=16, steps_per_generation=4, gradient_accumulation_steps=1, num_generations=group,
        num_iterations=1, max_completion_length=new, beta=0.05, temperature=1.0, top_k=0, top_p=1.0,
        max_steps=4 * updates, **settings(),
    )
    rewards = lambda completions, **_: [float(len(text) % 7) for text in completions]
    trainer = GRPOTrainer(
        model=model(), args=arguments, processing_class=tokenizer(), train_dataset=data, reward_funcs=rewards
    )
    return {"seconds": timed(trainer.train)}


def pretrain(compiled):
    policy = model()
    forward = torch.compile(policy) if compiled else policy
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, fused=True)
    vocabulary = policy.config.vocab_size

    def step():
        ids = torch.randint(5, vocabulary, (32, 128))
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    # The compiler's time is not counted.
    for _ in range(5):
        step()
    steps = 20
    return {"seconds": timed(lambda: [step() for _ in range(steps)]), "work": steps * 32 * 128}


def main():
    name, _, detail = WHAT.partition("-")
    measured = {
        "model": lambda: make_model(*map(int, MORE)),
        "matmul": matmul,
        "sft": lambda: sft(detail == "packed"),
        "reward": reward,
        "dpo": dpo,
        "sample": lambda: sample(int(detail)),
        "grpo": grpo,
        "pretrain": lambda: pretrain(detail == "compile"),
    }[name]()
    print("RESULT " + json.dumps(measured), flush=True)


main()
