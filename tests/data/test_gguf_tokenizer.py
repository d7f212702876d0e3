"""The tokenizer of a GGUF file cuts text as the one does that the file was written from."""

import json
import re

import pytest
import tokenizers
import transformers

from memarc import gguf_header
from memarc.data import gguf_tokenizer, tokenize
from tests import gguf_files

SPECIAL = ["<|end|>", "<|begin|>"]
TEXTS = (
    *("", " ", "  ", "\n", "\t\ttab\r\n", "a  b", " a", "a ", "\x00\x1f\x7f"),
    *("don't I'll WE'RE", "naïve café Ünïcödé", "漢字かな 한국어 ไทย", "العربية עברית"),
    *("👩‍👩‍👧 🏳️‍🌈 👍🏽", "a\u200bb\u00a0c\u2028d", "x" * 40, "...!?¿—“”‘’", "\ufeffbom"),
    *(
        "1234567890 3.14159 1e-5",
        "a  1",
        "\n\n1. one\n\n\n2. two",
        "²³½ ١٢٣ Ⅷ",
        " 1 22  333   4444",
    ),
    *("Hello<|end|>there <|begin|> you", "<|end|><|end|>", "<|endx|>", "<0x0A> ▁ Ġ Ċ"),
    *("    def f(x):\n        return x", "https://a.b/c?d=e&f=g#h", "CamelCaseHTTPRequest2"),
)
PUBLIC = [*TEXTS, *["the cat sat on the mat and ran to the hat", "12 1 23\n\n\n  4  5"] * 9]


MODEL = {  # Without which transformers reads no file.
    "llama.block_count": 1,
    "llama.embedding_length": 8,
    "llama.attention.head_count": 2,
}


def trained(pre_tokenizer, ignore_merges=False):
    """Byte pairs of public texts, with a way to cut text into words."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(PUBLIC, trainer)
    return backend


def described(backend, words):
    """What a file says of byte pairs."""
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": words,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 0,
    }


def written(path, metadata):
    """A file without tensors."""
    gguf_files.write_stored(path, "llama", metadata, {})
    return gguf_header.read(path)


def split(regex):
    """Cuts text as an expression says, into bytes."""
    return tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(regex), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


PRE_TOKENIZERS = {
    "gpt-2": tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    # The expressions that the published tokenizers of LLaMA 3 and Qwen 2 have.
    "llama-bpe": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


@pytest.mark.parametrize("words", PRE_TOKENIZERS)
def test_byte_pairs_are_those_of_the_tokenizer_that_was_written(tmp_path, words):
    backend = trained(PRE_TOKENIZERS[words], ignore_merges=words == "llama-bpe")
    header = written(tmp_path / "model.gguf", described(backend, words))
    found = tokenize.load_tokenizer(str(header.file))
    begin = [1] if words == "llama-bpe" else []
    for text in TEXTS:
        ids = backend.encode(text).ids
        assert found(text).input_ids == begin + ids, text
        assert found.decode(ids) == text
    assert (found.eos_token_id, found.bos_token_id, found.pad_token_id) == (0, 1, 0)
    assert sorted(found.all_special_tokens) == sorted(SPECIAL)
    assert len(found) == backend.get_vocab_size()
    assert gguf_tokenizer.difference(header, backend.get_vocab()) is None


def of_transformers(path):
    """What transformers' own conversion makes of a file that names a model, too."""
    pytest.importorskip("torch")
    return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


DIGITS_AFTER_BLANKS = re.compile(r"\s\s\d|[²٣]")


def test_transformers_own_conversion_is_equal_but_where_it_takes_gpt2s_way(tmp_path):
    """It does not know that in SmolLM's training the blanks before a digit were one word."""
    metadata = MODEL | described(trained(PRE_TOKENIZERS["smollm"]), "smollm")
    path = written(tmp_path / "model.gguf", metadata).file
    ours, theirs = tokenize.load_tokenizer(str(path)), of_transformers(path)
    for text in TEXTS:
        alike = ours(text).input_ids == theirs(text).input_ids
        assert alike or DIGITS_AFTER_BLANKS.search(text), text
    assert ours("a  1").input_ids != theirs("a  1").input_ids


def test_sentence_pieces_are_those_of_transformers(tmp_path):
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["\u2581", *"etaoinshrdlu", "th", "the", "\u2581t", "\u2581th", "\u2581the", "at", "an"]
    tokens = ["<unk>", "<s>", "</s>", *pieces, *words]
    metadata = MODEL | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(words)],
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    header = written(tmp_path / "model.gguf", metadata)
    found = tokenize.load_tokenizer(str(header.file), needs_pad=False)
    the = tokens.index("\u2581the")
    assert found("the hat").input_ids[:2] == [1, the]
    assert found("\n").input_ids[-1] == 3 + 10  # A byte that is no piece.
    theirs = of_transformers(header.file)
    for text in TEXTS:
        assert found(text).input_ids == theirs(text).input_ids, text
    assert found.all_special_tokens == theirs.all_special_tokens
    with pytest.raises(ValueError, match="has no pad token"):
        tokenize.load_tokenizer(str(header.file))


MISTAKES = [
    ({"tokenizer.ggml.tokens": None}, "lacks the key 'tokenizer.ggml.tokens'"),
    ({"tokenizer.ggml.model": "bert"}, "of the kind 'bert'; .* by data.tokenizer"),
    ({"tokenizer.ggml.pre": "poro-chat"}, "cuts text into words as 'poro-chat' does, .*'smollm'"),
    ({"tokenizer.ggml.pre": None}, "cuts text into words as None does"),
    ({"tokenizer.ggml.eos_token_id": 5000}, r"is damaged: it has \d+ tokens, .*5000"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES)
def test_a_tokenizer_that_is_not_known_is_refused(tmp_path, changes, message):
    metadata = described(trained(PRE_TOKENIZERS["gpt-2"]), "gpt-2") | changes
    given = {key: value for key, value in metadata.items() if value is not None}
    path = written(tmp_path / "model.gguf", given).file
    with pytest.raises(ValueError, match=message):
        tokenize.load_tokenizer(str(path))


def test_another_vocabulary_is_told_by_its_first_token(tmp_path):
    backend = trained(PRE_TOKENIZERS["gpt-2"])
    header = written(tmp_path / "model.gguf", described(backend, "gpt-2"))
    vocabulary = backend.get_vocab()
    vocabulary |= {"!": vocabulary["?"], "?": vocabulary["!"]}
    assert (
        gguf_tokenizer.difference(header, vocabulary)
        == f"'!' is {vocabulary['?']}, not {vocabulary['!']}"
    )


def test_smollm2_cuts_text_as_its_published_tokenizer_does(smollm2):
    """Ids of the published tokenizer, written down; the package of weights holds no other copy."""
    found = tokenize.load_tokenizer(str(smollm2))
    assert found("Hello world! 123").input_ids == [19556, 905, 17, 216, 33, 34, 35]
    assert found("  multiple   spaces").input_ids == [216, 2701, 256, 5600]
    assert found("<|im_start|>user").input_ids[0] == 1
    assert (len(found), found.eos_token) == (49152, "<|im_end|>")
