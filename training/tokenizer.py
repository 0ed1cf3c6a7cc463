"""Trains the two tokenizers of a FLUX model, small: SentencePiece for T5 and byte-pair encoding for CLIP.

T5Tokenizer of transformers 5 drops SentencePiece's byte fallback without a word, so that unknown letters
all become one token. The T5 tokenizer is therefore written as a tokenizer.json that states the fallback,
loaded by PreTrainedTokenizerFast; spiece.model lies beside it and a test holds the two to the same ids.
"""

import json
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

T5_PIECES = 420  # 256 of them are the bytes
T5_TOKENS_MAX = 512
SCORE_DIGITS = 4  # both files say the same number
CLIP_TOKENS_MAX = 77
CLIP_MERGES = 320
T5_PAD, T5_END, T5_UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2
CLIP_START, CLIP_END, CLIP_WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
CLIP_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_t5(texts: Iterable[str], folder: Path) -> int:
    """Write spiece.model, tokenizer.json and tokenizer_config.json into `folder`; the number of pieces."""
    folder.mkdir(parents=True)
    written = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        model_type="unigram",
        vocab_size=T5_PIECES,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",  # the usual tables weigh 0.5 MB
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    for piece in model.pieces:
        piece.score = round(piece.score, SCORE_DIGITS)
    (folder / "spiece.model").write_bytes(model.SerializeToString(deterministic=True))
    pieces = [(piece.piece, round(piece.score, SCORE_DIGITS)) for piece in model.pieces]
    _t5_tokenizer(pieces).save(str(folder / "tokenizer.json"), pretty=False)
    _write_config(
        folder,
        tokenizer_class="PreTrainedTokenizerFast",
        model_max_length=T5_TOKENS_MAX,
        eos_token=T5_END,
        pad_token=T5_PAD,
        unk_token=T5_UNKNOWN,
    )
    return len(pieces)


def train_clip(texts: Iterable[str], folder: Path) -> int:
    """Write vocab.json, merges.txt and tokenizer_config.json into `folder`; the number of tokens."""
    folder.mkdir(parents=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _learn_merges(texts)
    tokens = [*letters, *(letter + CLIP_WORD_END for letter in letters)]
    tokens += dict.fromkeys("".join(merge) for merge in merges)
    tokens = [*dict.fromkeys(tokens), CLIP_START, CLIP_END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    _write_config(
        folder,
        tokenizer_class="CLIPTokenizer",
        model_max_length=CLIP_TOKENS_MAX,
        bos_token=CLIP_START,
        eos_token=CLIP_END,
        pad_token=CLIP_END,
        unk_token=CLIP_END,
    )
    return len(tokens)


def _learn_merges(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The most frequent neighbours, joined, CLIP_MERGES times over; equal counts in the order of their letters.

    The tokenizers package has a trainer, but it breaks ties by chance.
    """
    to_words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(word for text in texts for word, _ in to_words.pre_tokenize_str(text.lower()))
    words = {(*word[:-1], word[-1] + CLIP_WORD_END): count for word, count in counts.items()}
    merges: list[tuple[str, str]] = []
    for _ in range(CLIP_MERGES):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {_join(word, best): count for word, count in words.items()}
    return merges


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    for letter in word:
        if joined and (joined[-1], letter) == pair:
            joined[-1] += letter
        else:
            joined.append(letter)
    return tuple(joined)


def _t5_tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    """SentencePiece's own steps: trim and join blanks, mark words with ▁, best split, bytes for the rest."""
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("^ +| +$"), ""),
            normalizers.Replace(Regex(" +"), "▁"),
            normalizers.Prepend("▁"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", T5_END], special_tokens=[(T5_END, 1)])
    tokenizer.add_special_tokens([T5_PAD, T5_END, T5_UNKNOWN])
    return tokenizer


def _write_config(folder: Path, **fields: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", "utf-8")
