"""Flags of the compiler for programs that run no longer than their optimisation takes."""

FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
