# Thin names for what is done often. One profile (release) for everything, so that nothing is built twice.
.PHONY: help setup build demo test bench clean
.DEFAULT_GOAL := help
# The programs and the MPI libraries are looked for under target/.
unexport CARGO_TARGET_DIR

help:
	@echo "make demo    six nodes, an MPI job, a killed primary manager: watch the job finish (DEMO='--kill node')"
	@echo "make test    format, lints, all tests; the slowest are listed at the end"
	@echo "make bench   benchmarks; the messaging layers beside other systems, into docs/PERFORMANCE.md"
	@echo "make build   the programs and RCL's provider for MPI, in target/release"
	@echo "make clean   remove what was built and installed under target/"

setup:
	@.ci/setup

build: setup
	cargo build --release --workspace --bins
	cargo build --release -p rcl-ofi

demo: build
	MPICC=$(CURDIR)/target/mpi/venv/bin/mpicc target/release/ghidrah demo $(DEMO)

test: setup
	@.ci/test

bench: build
	cargo bench --workspace
	benches/peers/setup
	target/release/ghidrah perf table --into docs/PERFORMANCE.md

clean:
	cargo clean
