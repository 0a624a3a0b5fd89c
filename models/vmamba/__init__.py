"""VMamba (Eq. 1-2): configuration, network, loading of the public checkpoints, and the parity check."""

from __future__ import annotations

from models.vmamba.check import check_encoder
from models.vmamba.checkpoint import KeyReport, infer_config, load_checkpoint
from models.vmamba.config import VMambaConfig
from models.vmamba.convert import ConversionReport, UnreadableWeights, convert_weights, read_weights
from models.vmamba.network import EncoderOutput, VMamba

__all__ = [
    "ConversionReport",
    "EncoderOutput",
    "KeyReport",
    "UnreadableWeights",
    "VMamba",
    "VMambaConfig",
    "check_encoder",
    "convert_weights",
    "infer_config",
    "load_checkpoint",
    "read_weights",
]
