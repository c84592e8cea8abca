"""The OSoRA operator: its definition, and the executions that are held to it.

Shapes: B rows, T tokens a row, N tokens in all; d_in and d_out the weight's sizes; R the basis rank, r an adapter's own
rank; n slots of a bank.

With z = V^T x, sigma = s - s0 and delta = o - 1 (arXiv 2505.14350, rearranged so that zero is the base model):

    y = W0 x + U (sigma * z) + delta * U ((s0 + sigma) * z)

The second and third term are the *update*. They need W0 neither dense nor in floating point, so the base layer may be
anything that maps [..., d_in] to [..., d_out].

An adapter may have a *mix*, a trained C [c, c] between U and V, which begins at zero, c at most r. With z_c the first c
values of z, and C z_c followed by zeros:

    y = W0 x + U (sigma * z + C z_c) + delta * U ((s0 + sigma) * z + C z_c)

so that the weight is W_res + diag(o) U (diag(s) + C) V^T. The mix is an extension of ours and no part of OSoRA as it
was published. Nearest to it are LoRA-XS, which trains such a matrix alone (arXiv 2405.17604), SVFT, which trains sparse
ones (arXiv 2405.19597), and PSOFT, whose matrix is orthogonal (ICLR 2026). It is an operand of its own (`Mixes`, of the
rows that have one; the reference and the executions for one adapter take C itself): where no row has one, nothing is
computed that would not be otherwise.

Every execution, and who chooses it:

    execution                         computes                           chosen by
    --------------------------------  ---------------------------------  ---------------------------------------------
    reference.osora_update_reference  the update of mixed slots, as the  `osora_update`, where no gradient is wanted;
                                      formula says                       tests, as what the others must equal
    autograd.osora_update             the same with a backward pass      `osora_linear`, unless one of the next two is
                                      that keeps z alone                 cheaper; the tuner, for `adapter_names`
    merged.osora_linear_merged        W0 x + update by one dense weight  `osora_linear`: float32 on a CPU, rows grouped
                                      a slot; x [B, T, d_in]             by slot, many tokens a slot
    batched.osora_add_batched         y + update by batched products     `osora_linear`: on a GPU, rows grouped by slot,
                                      over slots; x [B, T, d_in]         at least R tokens a slot
    factored.osora_add                y + update of one adapter for all  the tuner's layer, for each active adapter
                                      of x [..., d_in]
    factored.merged_weight            W0 + update as a weight            `export.merge`; the tuner's `merge` takes
                                      [d_out, d_in], in float64          `dense_update`, its second half
    merged_decoder.MergedDecoder      all layers of a small base by      `training.Passes`: float32 on a CPU, a known
                                      dense weights of one slot          decoder family, rows of one slot alone, of at
                                                                         most 256 tokens
    inference.segments.linear         W0 x + update, both products with  `inference.execution.choose`: a CPU and a
                                      U as one; x [N, d_in]              known decoder family
    kernels.expand                    update and the next elementwise    `inference.execution.choose`: a GPU with Triton
                                      work in one kernel; y [N, D + nR]  and a known decoder family

All of them take mixes. U and V are multiplied as without one; what comes on top is c^2 products a token in those that
go through z, and d_out c^2 a slot in those that go through B or a dense weight.

A plain LoRA is no adapter of the basis: `inference.lora_bank.PassLoras` adds its B A x to whatever one of these gives.

`osora_linear` (in choice.py) is what every OsoraLinear calls, in training and wherever serving goes through
transformers' own forward; it is the one place that compares the costs of executions of a layer.
"""

from osora_core.operator.autograd import osora_update
from osora_core.operator.batched import osora_add_batched
from osora_core.operator.choice import osora_linear
from osora_core.operator.factored import dense_update, lora_factor, merged_weight, osora_add
from osora_core.operator.merged import osora_linear_merged
from osora_core.operator.mixes import Mixes, of_layers
from osora_core.operator.reference import osora_update_reference
from osora_core.operator.runs import EqualRuns, Run, SlotRuns, equal_runs, runs

__all__ = [
    "EqualRuns",
    "Mixes",
    "Run",
    "SlotRuns",
    "dense_update",
    "equal_runs",
    "lora_factor",
    "merged_weight",
    "of_layers",
    "osora_add",
    "osora_add_batched",
    "osora_linear",
    "osora_linear_merged",
    "osora_update",
    "osora_update_reference",
    "runs",
]
