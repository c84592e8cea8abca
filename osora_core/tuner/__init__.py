"""OSoRA as a PEFT method. Importing this package registers it."""

from peft.utils import register_peft_method

from osora_core.tuner.config import NAME, OsoraConfig
from osora_core.tuner.layer import OsoraTunerLinear
from osora_core.tuner.model import OsoraModel

__all__ = ["OsoraConfig", "OsoraModel", "OsoraTunerLinear"]

register_peft_method(name=NAME.lower(), config_cls=OsoraConfig, model_cls=OsoraModel, prefix=OsoraModel.prefix)
