"""What the settings of all recipes share."""

from pydantic import ConfigDict

from drakkar.v1alpha1.meta import Model


class Settings(Model):
    """Recipe settings refuse unknown fields: a misspelt one would otherwise be ignored in silence."""

    model_config = ConfigDict(**{**Model.model_config, "extra": "forbid"})
