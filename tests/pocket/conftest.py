"""The pocket models and tasks by name, for every test of them."""

import pytest

from prompt_tuning.pocket import register


@pytest.fixture(autouse=True, scope="session")
def _registered():
    register.register_models()
    register.register_tasks()
