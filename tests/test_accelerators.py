"""Our programs, compiled ahead of time for TPUs and GPUs that are not here.

`python -m pytest -m accelerators`, with what requirements-accelerators.txt names. With
`-k "not convolutional"` it takes twenty minutes on a core. Of the convolutional models the compiler
for TPUs works at an epoch in float32 for some half an hour, so all of them are a matter of hours;
`-k bfloat16` takes seven minutes.
"""

import json
import math

import pytest

from benchmarks import accelerators, accelerators_page, ahead_of_time, compiled_text
from benchmarks.ahead_of_time import CONFIGS
from vamp_jax import choices
from vamp_jax.sequences import num_examples

DENSE = [case for case in accelerators.CASES if case.model not in choices.CONVOLUTIONAL]
CONVOLUTIONAL = [case for case in accelerators.CASES if case not in DENSE]
# Functions that the compilers for TPUs call of their own; none goes to the host.
OWN_CALLS = {
    "AllocateBuffer",
    "AssumeGatherIndicesInBound",
    "AsyncCollectiveDone",
    "AsyncCollectiveStart",
    "ConcatBitcast",
    "GatherScatterIndicesBitpacked",
}
# A TPU has no 64 bits: what a program asks for in them is done with two numbers of 32. The prior's
# density takes its largest term off so: nothing dear, and no product.
CHEAP_IN_FLOAT64 = {
    "add",
    "broadcast_in_dim",
    "constant",
    "convert",
    "is_finite",
    "reduce",
    "reshape",
    "select",
    "subtract",
}
# Megabytes at once on a device, program, arguments and all: a quarter above what was found. (What
# is not compiled so far has that of another: vrnn but for its epoch of seq_vae.)
MOST = {
    "epoch": dict(vae=185, hvae=225, conv_hvae=850, pixel_hvae=850)
    | dict(seq_vae=125, lvae=240, iwae_net=165, pixel_vae=920, vrnn=165),
    "log_likelihood": dict(vae=20, hvae=35, conv_hvae=1030, pixel_hvae=860)
    | dict(seq_vae=235, lvae=23, iwae_net=12, pixel_vae=1090, vrnn=235),
    "sampler": dict(vae=16, hvae=19, conv_hvae=145, pixel_hvae=145)
    | dict(seq_vae=18, lvae=19, iwae_net=12, pixel_vae=145, vrnn=18),
    "prior": dict(vae=13, hvae=13, conv_hvae=135, pixel_hvae=135)
    | dict(seq_vae=8, lvae=14, iwae_net=9, pixel_vae=135, vrnn=8),
}
# Whose weights and layers are all smaller than [B, K, D] on one device.
NOTHING_ELSE_AS_LARGE = ("vae", "hvae", "iwae_net")
STEP = "%step (s: (s32[], f32[4,5,6])) -> (s32[], f32[4,5,6]) {"
PROGRAM = f"""HloModule program, input_output_alias={{ {{0}}: (0, {{}}, may-alias) }}

%fused (p: f32[4,6]) -> f32[4,5] {{
  %wide = f32[4,5,6]{{2,1,0}} broadcast(%p), dimensions={{0,2}}
  ROOT %r = f32[4,5]{{1,0}} reduce(%wide), dimensions={{2}}, to_apply=%add
}}

%below (c: (s32[], f32[4,5,6])) -> pred[] {{
  %limit = s32[]{{:T(128)}} constant(7)
  ROOT %lt = pred[] compare(%count, %limit), direction=LT
}}

{STEP}
  %f = f32[4,5]{{1,0}} fusion(%q), calls=%fused, backend_config={{"estimated_cycles":"30"}}
  %call = () custom-call(%f), custom_call_target="xla_python_callback"
  %d = f64[] convert(%f), backend_config={{"estimated_cycles":"2"}}
}}

ENTRY %main (a: f32[4,5,6]) -> f32[4,5,6] {{
  %w = (s32[], f32[4,5,6]{{2,1,0}}) while(%t), condition=%below, body=%step
  %g = f32[] sine(%w), backend_config={{"estimated_cycles":"100"}}
  %token = token[] outfeed(%w)
}}
"""


def test_every_network_has_its_programs():
    assert set(CONFIGS) == set(choices.NETWORKS)
    assert len({case.name for case in accelerators.CASES}) == len(accelerators.CASES)


def test_what_a_program_says_of_itself():
    found = compiled_text.summary(PROGRAM)
    assert found["loops"] == [(7, 32, [])] and found["cycles"] == 7 * 32 + 100
    assert found["float64_values"] == 1 and found["aliased"] == 1
    assert found["custom_calls"] == ["xla_python_callback"] and found["to_host"] == ["outfeed"]
    # Inside a fusion an array is not written to memory; what a loop carries is.
    assert ("f32", 4, 5, 6) in compiled_text.buffers(PROGRAM)
    fused_alone = PROGRAM.replace("(s32[], f32[4,5,6]{2,1,0}) while", "s32[] while")
    assert ("f32", 4, 5, 6) not in compiled_text.buffers(fused_alone)
    assert ("f32", 4, 5) in compiled_text.buffers(fused_alone)


def test_every_model_has_a_name_and_a_bound():
    for case in accelerators.CASES:
        assert case.model in accelerators_page.NAMES and case.model in MOST[case.program]


def test_the_page_is_that_of_the_results():
    results = json.loads(accelerators.RESULTS.read_text())
    known = {case.name for case in accelerators.CASES}
    assert results.keys() <= known, "a program that is none any more"
    assert accelerators.PAGE.read_text() == accelerators.page_of(results)


@pytest.mark.accelerators
@pytest.mark.parametrize("case", DENSE, ids=lambda case: case.name)
def test_a_program_fits_its_accelerator(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.accelerators
@pytest.mark.parametrize("case", CONVOLUTIONAL, ids=lambda case: case.name)
def test_a_convolutional_program_fits_its_accelerator(case, tmp_path):
    check(case, tmp_path)


def check(case, folder):
    if sentence := accelerators.lacks(case):
        pytest.skip(sentence)
    report = accelerators.compiled(case, folder)
    if case.target != "h100":  # a GPU has units for it, and the prior's products use them
        assert report["float64_values"] == 0
        assert set(report["float64_operations"]) <= CHEAP_IN_FLOAT64
        assert set(report["custom_calls"]) <= OWN_CALLS
    assert not [call for call in report["custom_calls"] if "callback" in call or "host" in call]
    assert report["to_host"] == []
    assert report["aliased"] == report["donated_leaves"]
    assert (report["donated_leaves"] > 0) == (case.program == "epoch")
    assert report["memory"]["peak_memory"] < 1e6 * MOST[case.program][case.model]
    config = ahead_of_time.config_of(case)
    check_buffers(case, config, report["buffers"])
    if case.program in ("epoch", "log_likelihood"):
        check_loops(case, config, report["loops"])


def check_buffers(case, config, buffers):
    """No density of each latent of each example under each component, [B, K, D], in any order."""
    components, latents = config.num_components, config.latent_dim
    batch = -(-config.batch_size // case.num_devices) * config.num_importance_samples
    rows = {"epoch": batch, "log_likelihood": 1000}.get(case.program, 100)
    floats = [(kind, dims) for kind, *dims in buffers if kind in ("f32", "bf16", "f64")]
    large = [dims for _, dims in floats if math.prod(dims) >= rows * components * latents]
    # A ladder's D = 4 is also the number of parts in which a GPU sums a product.
    if not (case.target == "h100" and case.model in choices.LADDERS):
        assert not [dims for dims in large if components in dims and latents in dims]
    if case.model in NOTHING_ELSE_AS_LARGE and case.num_devices == 1:
        assert not large  # nor flat


def check_loops(case, config, loops):
    """Steps and validation, or batches and chunks of samples; what runs once is no loop."""
    if case.program == "log_likelihood":
        batches = 1 if case.model in choices.CONVOLUTIONAL else 10
        outer = loops[0] if batches > 1 else (1, 0, loops)
        chunks = [trips for trips, _, inner in outer[2]]
        assert outer[0] == batches and config.num_samples // 100 in chunks
        return
    dataset = ahead_of_time.dataset_of(case)
    at_once = config.eval_batch_size // config.num_importance_samples * case.num_devices
    steps = -(-num_examples(dataset.train) // config.batch_size)
    chunks = -(-num_examples(dataset.validation) // at_once)
    if case.model in choices.SEQUENTIAL:  # whose other loops are over time, or in a sort
        assert [trips for trips, _, _ in loops].count(steps) == 1
        return
    passes = 2 if case.model in choices.LADDERS else 1  # one for the statistics of batch norm
    assert [trips for trips, _, _ in loops] == [steps] * passes + [chunks]
    assert not any(inner for _, _, inner in loops)
