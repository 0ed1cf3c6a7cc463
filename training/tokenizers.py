"""The two tokenizers, trained on captions and a little general text: SentencePiece for T5, byte-level BPE for CLIP.

Any text in any language tokenizes: SentencePiece falls back to bytes, the BPE starts from all of them.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from training.captions import caption, elsewhere
from training.scene import random_scene

PROMPT_TOKENS_MAX = 64  # of either tokenizer
PIECES_MAX = 1536  # SentencePiece, its 256 bytes included
MERGES = 1024  # BPE
CAPTIONS = 40_000
_HAN = re.compile(r"([\u4e00-\u9fff])")

GENERAL_TEXT = (
    "The quick brown fox jumps over the lazy dog while the small cat sleeps in the warm afternoon sun.",
    "Please make a beautiful picture with soft light, many colours and a quiet sea under the moon.",
    "One, two, three, four, five, six, seven, eight, nine, ten: numbers like 0 1 2 3 4 5 6 7 8 9 are common.",
    "People write about houses, trees, rivers, mountains, cities, streets, cars, birds, horses and friends.",
    "What is this? It is not that! I would like to see something new, something old and something bright.",
    "A photograph of an old man with a hat, holding a book near the window, in the style of a painting.",
    "今天天气很好，我们一起去公园看花。请给我画一张美丽的图片，里面有山、水、树和房子。",
    "这是什么？那不是我的。他们在城市里工作，晚上回家看书。大小多少，上下左右，前后里外。",
    "Ein schönes Bild mit Bäumen und einem Haus am See, bitte. Les enfants jouent près de la rivière.",
    "Una imagen de un gato sobre la mesa, con luz suave y colores vivos. Um pássaro azul no céu claro.",
)


def corpus(seed: int) -> list[str]:
    """The text both are trained on: captions, other prompts, general text."""
    rng = random.Random(seed)
    captions = [caption(random_scene(rng), rng) for _ in range(CAPTIONS)]
    return [*captions, *(elsewhere(rng) for _ in range(CAPTIONS // 40)), *GENERAL_TEXT * 20]


def train_tokenizers(folder: Path, seed: int) -> tuple[CLIPTokenizer, PreTrainedTokenizerFast]:
    """Writes folder/tokenizer (CLIP) and folder/tokenizer_2 (T5) and returns both."""
    lines = corpus(seed)
    clip = _train_clip(folder / "tokenizer", lines)
    return clip, _train_t5(folder / "tokenizer_2", lines)


# --- T5: SentencePiece ---------------------------------------------------------------------------


def _train_t5(folder: Path, lines: list[str]) -> PreTrainedTokenizerFast:
    folder.mkdir(parents=True, exist_ok=True)
    spaced = folder / "corpus.txt"
    # Han characters stand apart while training, so that no piece swallows a phrase: meaning stays composed
    spaced.write_text("\n".join(_HAN.sub(r" \1 ", line) for line in lines if line.isprintable()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(spaced),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=PIECES_MAX,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )  # fmt: skip
    spaced.unlink()
    (folder / "spiece.vocab").unlink()
    _forget_paths(folder / "spiece.model")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast_tokenizer(folder / "spiece.model"),
        model_max_length=PROMPT_TOKENS_MAX,
        pad_token="<pad>",  # noqa: S106  # a token of the vocabulary, no password
        eos_token="</s>",  # noqa: S106  # a token of the vocabulary, no password
        unk_token="<unk>",  # noqa: S106  # a token of the vocabulary, no password
        padding_side="right",
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def _forget_paths(model: Path) -> None:
    """The file says where it was made; that is nobody's business."""
    proto: Any = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes())
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    model.write_bytes(proto.SerializeToString())


def fast_tokenizer(model: Path) -> Tokenizer:
    """The same tokenizer as SentencePiece's own, byte fallback included, with </s> at the end."""
    proto: Any = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
        normalizers.Replace(Regex(" {2,}"), " "),
        normalizers.Strip(left=True, right=True),
    ])  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([
        decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always"),
    ])  # fmt: skip
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", proto.trainer_spec.eos_id)]
    )
    return tokenizer


# --- CLIP: byte-level BPE ------------------------------------------------------------------------


def _train_clip(folder: Path, lines: list[str]) -> CLIPTokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    blank = CLIPTokenizer()  # for its own normalizer and splitting
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(alphabet) + MERGES, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(lines, trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(merge) for merge in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=PROMPT_TOKENS_MAX)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n", encoding="utf-8"
    )
    return tokenizer
