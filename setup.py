"""Installs prompt_tuning from PyPI alone.

The exact versions that the tests run with are in constraints.txt, the oldest, on Python 3.11, and
constraints-newest.txt, on Python 3.13.
"""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = "0.1.0"


def recipe_files() -> list[tuple[str, list[str]]]:
    """Puts gin/ and configs/ where an installed copy looks for them, see config.roots."""
    folders = sorted(
        {
            path.parent.relative_to(ROOT)
            for top in ("gin", "configs")
            for path in (ROOT / top).rglob("*.gin")
        }
    )
    return [
        (
            f"share/prompt-tuning/{folder}",
            sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.gin")),
        )
        for folder in folders
    ]


setup(
    name="prompt-tuning",
    version=VERSION,
    description="Prompt tuning of frozen T5 models in JAX and Flax.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # gin/ would be installed over gin-config if it were found as a package
    packages=find_packages(include=["prompt_tuning", "prompt_tuning.*"]),
    # the pocket models: their vocabulary, their parameters and their cards
    package_data={"prompt_tuning": ["assets/*", "assets/*/*"]},
    data_files=recipe_files(),
    install_requires=[
        "etils>=1.15",
        "flax>=0.12.8,<0.13",
        "gin-config>=0.5.0,<0.6",
        "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10.2,<0.13",
        "jaxtyping>=0.3.11,<0.4",
        "matplotlib>=3.11,<3.12",
        "ml_dtypes>=0.5",
        "numpy>=2.0,<3",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "pandas>=3.0,<4",
        "protobuf>=6",
        "rich>=14,<16",
        "rouge-score>=0.1.2,<0.2",
        "safetensors>=0.8,<1",
        "scipy>=1.15,<2",
        "sentencepiece>=0.2.1,<0.3",
        "seqio>=0.0.20,<0.1",
        "tensorboard>=2.21,<2.22",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<4.10",
        "tensorflow-text>=2.21,<2.22",
        "tensorstore>=0.1.86,<0.2",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
        "plan": ["libtpu>=0.0.42,<0.1"],  # the TPU's compiler; needs no TPU
        "gcs": ["google-cloud-storage>=2.10,<4"],  # for MODEL_DIR=gs://..., Orbax needs it
        "hf": ["huggingface_hub>=0.36,<3"],  # hf:// names; a folder on disk needs nothing
        "parity": [  # tests/test_hugging_face_parity.py compares with them; not imported elsewhere
            "peft==0.21.2",
            "torch==2.13.0",
            "transformers==5.23.0",
        ],
        "test": [
            "beartype>=0.22",
            "hypothesis>=6.170,<7",
            "ipykernel>=7,<8",
            "nbclient>=0.11,<0.12",
            "nbformat>=5.11,<6",
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "ruff>=0.17,<0.18",
        ],
    },
    entry_points={"console_scripts": ["prompt-tuning = prompt_tuning.cli:script"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
