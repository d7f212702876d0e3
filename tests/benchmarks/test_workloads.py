"""Workloads are what the page says they are, and small ones keep what matters of them."""

import pytest

from benchmarks import workloads


@pytest.mark.parametrize(
    ("name", "rows", "tokens", "dtype"),
    [
        ("w1", 16, 128, "float32"),
        ("w2", 32, 64, "float32"),
        ("roberta_large", 32, 128, "bfloat16"),
        ("qwen_twin", 8, 512, "bfloat16"),
    ],
)
def test_a_workload_has_its_stated_rows_and_tokens(name, rows, tokens, dtype):
    case = workloads.make_case(name, "lora", is_small=False)
    assert (case.batch_size, case.seq_len, case.backbone.dtype) == (rows, tokens, dtype)


def test_the_twin_trains_rank_16_beside_all_seven_maps_of_a_layer_small_or_not():
    for is_small in (False, True):
        case = workloads.make_case("qwen_twin", "lora", is_small=is_small)
        assert case.options["rank"] == 16 and len(set(case.options["targets"])) == 7
    assert case.backbone.kind == "qwen2" and case.backbone.key_heads < case.backbone.heads


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("w3", "lora", "Unknown workload 'w3'; choose one of"),
        ("w1", "reversible", "Method 'reversible' is none that peers share"),
    ],
)
def test_what_is_unknown_is_named(name, label, message):
    with pytest.raises(ValueError, match=message):
        workloads.make_case(name, label, is_small=True)
