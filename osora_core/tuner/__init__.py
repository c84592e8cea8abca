"""OSoRA as a PEFT method. Importing this package registers it."""

import warnings

from peft.utils import register_peft_method

from osora_core.tuner.config import NAME, OsoraConfig
from osora_core.tuner.layer import OsoraTunerLinear
from osora_core.tuner.model import OsoraModel

__all__ = ["OsoraConfig", "OsoraModel", "OsoraTunerLinear"]

# PEFT asks a model for a property by its older name, of which newer versions of transformers warn whoever trains.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

register_peft_method(name=NAME.lower(), config_cls=OsoraConfig, model_cls=OsoraModel, prefix=OsoraModel.prefix)
