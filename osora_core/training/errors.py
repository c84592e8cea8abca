"""What goes wrong with a training job, or with the devices that train it."""

from osora_core.errors import OsoraCoreError, UserError


class DeviceLostError(Exception):
    """Of the devices that make a pass together, one has gone or is out of step: no pass can be made again."""


class NonFiniteLoss(UserError):
    """A job's loss, gradient or vectors are no longer numbers."""

    code = "non_finite_loss"

    @classmethod
    def at(cls, message: str) -> "NonFiniteLoss":
        """Of training that has run away, which a lower rate mends."""
        return cls(message, param="osora.learning_rate", next_action="submit the job again with a lower learning rate")


class NotEnoughMemory(OsoraCoreError):
    """A job does not fit beside those that are here; it will when some have ended."""

    code = "not_enough_memory"


class JobTooLarge(UserError):
    """A job does not fit the device, though nobody else is there."""

    code = "job_too_large"


class JobTooShort(OsoraCoreError):
    """Measuring what a sweep of a job would cost takes too much of the time that the job itself takes."""

    code = "job_too_short"


class DuplicateJob(OsoraCoreError):
    """The engine holds another job of the same id: an earlier attempt at it, which has not been taken out yet."""

    code = "duplicate_job"
