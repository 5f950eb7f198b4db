"""Benchmarks: importing this package registers them."""

from latent_actions.retrieval.benchmarks.atomic import AtomicBenchmark, CrossPlaceBenchmark
from latent_actions.retrieval.benchmarks.chirality import ChiralityBenchmark
from latent_actions.retrieval.benchmarks.commitment import CommitmentBenchmark
from latent_actions.retrieval.benchmarks.keystep import KeystepBenchmark
from latent_actions.retrieval.benchmarks.language import LanguageBenchmark
from latent_actions.retrieval.benchmarks.scene_bias import SceneBiasBenchmark
from latent_actions.retrieval.benchmarks.zero_shot import (
    NtuBenchmark,
    PhyWorldBenchmark,
    Ssv2Benchmark,
)

__all__ = [
    "AtomicBenchmark", "ChiralityBenchmark", "CommitmentBenchmark", "CrossPlaceBenchmark",
    "KeystepBenchmark", "LanguageBenchmark", "NtuBenchmark", "PhyWorldBenchmark",
    "SceneBiasBenchmark", "Ssv2Benchmark",
]  # fmt: skip
