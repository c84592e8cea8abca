"""OSoRA: the method, as a PEFT tuner and as the engines of the service.

    from osora_core import OsoraConfig
    from peft import get_peft_model

    model = get_peft_model(base, OsoraConfig(r=128))

Importing osora_core makes the method known to PEFT, whichever of the two is imported first; `PeftModel.from_pretrained`
then reads OSoRA adapters. The engines need no PEFT, which takes seconds to import: osora_core alone does not import it.
The basis of a base is computed once and stored in $OSORA_CACHE, or ~/.cache/osora.

Words that have one meaning in all of osora_core:

    base     a pretrained model, identified by the hash of its weights; its weights are never written
    basis    the stored U, S, V^T of a base's weights, identified by the hash of its content
    span     where one module's sigma and delta lie among the P values of an adapter
    bank     the vectors of many adapters, one matrix [n, P]
    slot     the place of one adapter in a bank; slot 0 is the bare base. Its P values are the *adapter row*, as they
             are a row of that matrix: `Adapter.to_row`, `AdapterRow`. Alone, *row* means the next one
    row      one sequence of a batch, its first dimension B
    line     the place of one sequence's keys and values in the key/value pool
    run      neighbouring rows that share a slot
    segment  neighbouring rows with equally many tokens, in a pass whose tokens lie one behind the other
    chunk    the part of a prompt that one pass reads
    pass     one execution of the model, forward or forward and backward
    group    linears that read the same input, computed as one product
    block    what one program of a kernel takes: neighbouring tokens, or columns
"""

from typing import TYPE_CHECKING, Any

from osora_core.peft_import import register_with_peft

if TYPE_CHECKING:
    from osora_core.tuner import OsoraConfig

__all__ = ["OsoraConfig"]


def __getattr__(name: str) -> Any:
    if name == "OsoraConfig":
        from osora_core.tuner import OsoraConfig

        return OsoraConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_with_peft()
